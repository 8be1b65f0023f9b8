/** Clients of the line protocol: real sockets, and a process that can be killed. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { onTestFinished } from "vitest"

export interface Client {
  readonly socket: Socket
  readonly say: (...lines: ReadonlyArray<string>) => void
  /** The next line, or undefined when the server has hung up. */
  readonly hears: () => Promise<string | undefined>
}

export const clientOf = async (port: number): Promise<Client> => {
  const socket = connect(port, "127.0.0.1")
  onTestFinished(() => void socket.destroy())
  await once(socket, "connect")
  let text = ""
  socket.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk
  })
  const closed = new Promise<void>((resolve) => socket.on("error", () => {}).once("close", () => resolve()))
  const hears = async (): Promise<string | undefined> => {
    for (;;) {
      const end = text.indexOf("\n")
      if (end >= 0) {
        const line = text.slice(0, end)
        text = text.slice(end + 1)
        return line
      }
      if (socket.closed) return undefined
      await Promise.race([once(socket, "data"), closed])
    }
  }
  return { socket, say: (...lines) => void socket.write(lines.map((line) => `${line}\n`).join("")), hears }
}

/** A process that says one line and waits for the answer. */
export const clientProcess = (port: number, line: string) => {
  const script = `require("node:net").connect(${port}, "127.0.0.1").resume().write(${JSON.stringify(`${line}\n`)})`
  const child = spawn(process.execPath, ["-e", script], { stdio: "ignore" })
  onTestFinished(() => void child.kill("SIGKILL"))
  return child
}
