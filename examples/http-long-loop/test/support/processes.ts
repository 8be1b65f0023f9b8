/** Real processes, followed line by line. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { onTestFinished } from "vitest"

export interface Running {
  /** What it printed so far, on both outputs. */
  readonly output: () => string
  /** Waits for a line; text that an earlier call has found is not looked at again. */
  readonly says: (pattern: RegExp) => Promise<RegExpExecArray>
  readonly kill: (signal: NodeJS.Signals) => void
  readonly end: Promise<number | null>
}

export const run = (command: string, ...args: ReadonlyArray<string>): Running => {
  const child = spawn("sh", ["-c", 'exec "$0" "$@" 2>&1', command, ...args], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  onTestFinished(() => void child.kill("SIGKILL"))
  let output = ""
  let read = 0
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    output += chunk
  })
  const end = once(child, "close").then(([code]) => code as number | null)
  const says = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const found = pattern.exec(output.slice(read))
      if (found !== null) {
        read += found.index + found[0].length
        return found
      }
      const ended = end.then(() =>
        Promise.reject(new Error(`It ended and never said ${pattern}:\n${output}`))
      )
      await Promise.race([once(child.stdout, "data"), ended])
    }
  }
  return { output: () => output, says, kill: (signal) => void child.kill(signal), end }
}

export interface Server extends Running {
  readonly url: string
  readonly innerUrl: string
}

const program = fileURLToPath(new URL("../../src/server.ts", import.meta.url))

export const runServer = (...flags: ReadonlyArray<string>): Running =>
  run(process.execPath, "-C", "@curfew/source", program, ...flags)

/** A server that listens, with two users: ada, whose token is `secret`, and bob, whose token is `word`. */
export const startServer = async (): Promise<Server> => {
  const server = runServer("--port=0", "--inner=0", "--users=ada=secret,bob=word")
  const [, port] = await server.says(/Listens to everybody on port (\d+)\n/)
  const [, inner] = await server.says(/Listens to the inner network on port (\d+)\n/)
  return { ...server, url: `http://127.0.0.1:${port}`, innerUrl: `http://127.0.0.1:${inner}` }
}
