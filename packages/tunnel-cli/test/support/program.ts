/** The program as real processes, followed line by line. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { atEnd } from "./cleanUp.ts"

export const cli = fileURLToPath(new URL("../../src/cli.ts", import.meta.url))

export interface Running {
  readonly child: ChildProcess
  /** What it printed so far on the error output. */
  readonly log: () => string
  readonly out: () => string
  /** Waits for a line in the log; what an earlier call has found is not looked at again. */
  readonly says: (pattern: RegExp) => Promise<RegExpExecArray>
  readonly signal: (name: NodeJS.Signals) => void
  readonly end: Promise<number | null>
}

export const start = (
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {},
  command: readonly [string, ...ReadonlyArray<string>] = [process.execPath, "-C", "@curfew/source", cli]
): Running => {
  const [program, ...first] = command
  const child = spawn(program, [...first, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env }
  })
  atEnd(() => void child.kill("SIGKILL"))
  let log = ""
  let out = ""
  let read = 0
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
    log += chunk
  })
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    out += chunk
  })
  const end = once(child, "close").then(([code]) => code as number | null)
  const says = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const found = pattern.exec(log.slice(read))
      if (found !== null) {
        read += found.index + found[0].length
        return found
      }
      await Promise.race([
        once(child.stderr, "data"),
        end.then(() => Promise.reject(new Error(`It ended and never said ${pattern}:\n${log}`)))
      ])
    }
  }
  return { child, log: () => log, out: () => out, says, signal: (name) => void child.kill(name), end }
}

/** Runs a command to its end. */
export const runToEnd = async (
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {}
): Promise<{ readonly code: number | null; readonly out: string; readonly log: string }> => {
  const running = start(args, env)
  const code = await running.end
  return { code, out: running.out(), log: running.log() }
}

export interface Gateway extends Running {
  readonly listen: string
  readonly expose: string
  readonly admin: string
}

export const startGateway = async (
  args: ReadonlyArray<string> = [],
  env: Readonly<Record<string, string>> = {}
): Promise<Gateway> => {
  const local = ["--listen", "127.0.0.1:0", "--expose", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
  const running = start(["gateway", ...local, ...args], env)
  const [, admin = "", listen = "", expose = ""] = await running.says(
    /gateway ready admin=(\S+) listen=(\S+) expose=(\S+)/
  )
  return { ...running, admin, listen, expose }
}

/** An agent that is connected. */
export const startAgent = async (
  gateway: Gateway,
  backend: string,
  args: ReadonlyArray<string> = [],
  env: Readonly<Record<string, string>> = {}
): Promise<Running> => {
  const words = ["agent", "--gateway", gateway.listen, "--backend", backend]
  const running = start([...words, ...(args.includes("--key") ? [] : ["--key", "home"]), ...args], env)
  await running.says(/tunnel opened/)
  await gateway.says(/tunnel opened key=/)
  return running
}

/** A connect that listens, and has its tunnel unless that is not waited for. */
export const startConnect = async (
  gateway: Pick<Gateway, "listen">,
  args: ReadonlyArray<string> = [],
  open = true
): Promise<Running & { readonly listen: string }> => {
  const running = start(["connect", "--gateway", gateway.listen, "--listen", "127.0.0.1:0", ...args])
  const [, listen = ""] = await running.says(/connect ready .*listen=(\S+)/)
  if (open && !running.log().includes("tunnel opened")) await running.says(/tunnel opened/)
  return { ...running, listen }
}
