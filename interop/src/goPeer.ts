/** The Go end: one process for each role. */
import { type ChildProcessByStdio, spawn, spawnSync } from "node:child_process"
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Readable, Writable } from "node:stream"
import { fileURLToPath } from "node:url"

const here = fileURLToPath(new URL("..", import.meta.url))

export interface Programs {
  readonly peer: string
  readonly upstreamServer: string
  readonly upstreamClient: string
}

const go = (args: ReadonlyArray<string>): string | undefined => {
  const { error, status, stderr } = spawnSync("go", args, { cwd: here, encoding: "utf8" })
  if (error !== undefined)
    return "Go is missing: install Go 1.24 or newer (Debian: apt-get install golang-go) and run this again."
  return status === 0 ? undefined : `The Go programs could not be built by "go ${args.join(" ")}":\n${stderr}`
}

const newFolder = (): string => mkdtempSync(join(tmpdir(), "curfew-interop-"))

/** Builds the peer alone; a sentence when that cannot be done. */
export const buildPeer = (folder: string = newFolder()): Pick<Programs, "peer"> | string => {
  const peer = join(folder, "peer")
  return go(["test", "-c", "-o", peer, "./peer"]) ?? { peer }
}

/** Builds the peer and the Go library's own two programs; a sentence when that cannot be done. */
export const build = (): Programs | string => {
  const folder = newFolder()
  const built = buildPeer(folder)
  if (typeof built === "string") return built
  const programs = {
    ...built,
    upstreamServer: join(folder, "tunneltestsvr"),
    upstreamClient: join(folder, "tunneltestclient")
  }
  const upstream = "github.com/jhump/grpctunnel/internal/cmd"
  return (
    go(["build", "-o", programs.upstreamServer, `${upstream}/tunneltestsvr`]) ??
    go(["build", "-o", programs.upstreamClient, `${upstream}/tunneltestclient`]) ??
    programs
  )
}

export class GoProcess {
  readonly ended: Promise<number>
  output = ""
  private readonly child: ChildProcessByStdio<Writable, Readable, Readable>
  private readonly heard = new Set<() => void>()

  constructor(program: string, args: ReadonlyArray<string>, environment: Record<string, string> = {}) {
    this.child = spawn(program, args, {
      env: { ...process.env, ...environment },
      stdio: ["pipe", "pipe", "pipe"]
    })
    const hear = (chunk: Buffer) => {
      this.output += chunk
      for (const look of this.heard) look()
    }
    // Who writes to a process that is gone learns it by its end.
    this.child.stdin.on("error", () => undefined)
    this.child.stdout.on("data", hear)
    this.child.stderr.on("data", hear)
    this.ended = new Promise((resolve) => {
      this.child.on("exit", (code) => {
        resolve(code ?? 1)
        for (const look of this.heard) look()
      })
    })
  }

  /** Waits for the first match in what the process says. */
  said(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const match = pattern.exec(this.output)
        const over = this.child.exitCode !== null || this.child.signalCode !== null
        if (match === null && !over) return
        this.heard.delete(look)
        if (match !== null) resolve(match)
        else reject(new Error(`The Go process ended before it said ${pattern}:\n${this.output}`))
      }
      this.heard.add(look)
      look()
    })
  }

  write(text: string): void {
    this.child.stdin.write(text)
  }

  /** Ends a role that runs until its input closes. */
  async stop(): Promise<number> {
    this.child.stdin.end()
    const killer = setTimeout(() => this.child.kill("SIGKILL"), 10_000)
    const code = await this.ended
    clearTimeout(killer)
    return code
  }

  kill(): void {
    this.child.kill("SIGKILL")
  }
}

export interface Counted {
  readonly passed: number
  readonly failures: ReadonlyArray<string>
  /** What failed before everything was made once more. */
  readonly again?: ReadonlyArray<string>
}

/** The leaves of the verbose output of Go's tests; the sentences stand above the line of the case they belong to. */
export const countTests = (output: string): Counted => {
  const results = [...output.matchAll(/^ *--- (PASS|FAIL): (\S+)/gm)].map(([, verdict, name]) => ({
    verdict,
    name: name as string
  }))
  const leaves = results.filter(({ name }) => !results.some((other) => other.name.startsWith(`${name}/`)))
  return {
    passed: leaves.filter(({ verdict }) => verdict === "PASS").length,
    failures: leaves.filter(({ verdict }) => verdict === "FAIL").map(({ name }) => name)
  }
}
