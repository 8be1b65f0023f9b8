/** Real processes, followed line by line. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { onTestFinished } from "vitest"

export interface Running {
  /** What it printed so far, on both outputs, in the order in which it did. */
  readonly output: () => string
  /** Waits for a line; text that an earlier call has found is not looked at again. */
  readonly says: (pattern: RegExp) => Promise<RegExpExecArray>
  /** Ctrl-C. */
  readonly interrupt: () => void
  readonly end: Promise<number | null>
}

export const run = (
  command: string,
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {}
): Running => {
  // One pipe for both outputs keeps their order; `exec` makes the program the process that gets the signals.
  const child = spawn("sh", ["-c", 'exec "$0" "$@" 2>&1', command, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env }
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
      await Promise.race([
        once(child.stdout, "data"),
        end.then(() => Promise.reject(new Error(`It ended and never said ${pattern}:\n${output}`)))
      ])
    }
  }
  return { output: () => output, says, interrupt: () => void child.kill("SIGINT"), end }
}

const program = (name: string, args: ReadonlyArray<string>): Running =>
  run(process.execPath, [
    "-C",
    "@curfew/source",
    fileURLToPath(new URL(`../../src/${name}.ts`, import.meta.url)),
    ...args
  ])

export interface Server extends Running {
  readonly address: string
}

/** A server that listens. */
export const startServer = async (...args: ReadonlyArray<string>): Promise<Server> => {
  const server = program("server", ["--port=0", ...args])
  const [, address = ""] = await server.says(/listens on (\S+)/)
  return { ...server, address }
}

export const startClient = (address: string, ...args: ReadonlyArray<string>): Running =>
  program("client", [`--server=${address}`, ...args])

/** So long that nobody finds it. */
export const endless = "--name=theneedleinthehaystack"
