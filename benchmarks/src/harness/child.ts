/**
 * A Node process of a file of this workspace, which talks JSON with its parent.
 *
 * Invariants:
 * 1. A child has one owner, who stops it and waits for its end; what an owner leaves behind dies with the parent, because
 *    a child whose channel closes exits.
 * 2. Every question is answered, failed by the child, or failed by its end; none waits for ever.
 * 3. Collecting garbage, processor time and memory can be asked of every child: those that measure it do so alike.
 */
import { type ChildProcess, fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { getHeapSpaceStatistics } from "node:v8"

interface Question {
  readonly id: number
  readonly name: string
  readonly argument: unknown
}

interface Answer {
  readonly id: number
  readonly value?: unknown
  readonly error?: string
}

export interface ChildOptions {
  readonly args?: ReadonlyArray<string>
  /** Beside the condition by which packages resolve to their sources, and `--expose-gc`. */
  readonly nodeArgs?: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
}

export interface Memory {
  readonly heapUsed: number
  /** How much of the heap is compiled code, and what describes it; the rest is objects. */
  readonly code: number
  readonly rss: number
  readonly external: number
}

export class Child {
  readonly #process: ChildProcess
  readonly #ended: Promise<string>
  readonly #asked = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>()
  readonly #name: string
  #end: string | undefined
  #next = 0

  private constructor(process: ChildProcess, name: string) {
    this.#process = process
    this.#name = name
    this.#ended = new Promise((resolve) => {
      const end = (how: string) => {
        this.#end ??= how
        for (const { reject } of this.#asked.values()) reject(new Error(`${name} ${how}.`))
        this.#asked.clear()
        resolve(how)
      }
      process.once("error", ({ message }) => end(`failed: ${message}`))
      process.once("exit", (code, signal) => end(`ended with ${signal ?? `code ${code}`}`))
    })
    process.on("message", ({ error, id, value }: Answer) => {
      const asked = this.#asked.get(id)
      this.#asked.delete(id)
      if (error === undefined) asked?.resolve(value)
      else asked?.reject(new Error(`${name}: ${error}`))
    })
  }

  /** Starts the process, and waits until it answers. */
  static async start(file: URL, { args = [], environment = {}, nodeArgs = [] }: ChildOptions = {}) {
    const path = fileURLToPath(file)
    const started = fork(path, args, {
      execArgv: ["-C", "@curfew/source", "--expose-gc", "--no-warnings", ...nodeArgs],
      env: { ...process.env, ...environment },
      stdio: ["ignore", "inherit", "inherit", "ipc"]
    })
    const child = new Child(started, path.split("/").slice(-2).join("/"))
    await child.ask("ready")
    return child
  }

  get pid(): number {
    return this.#process.pid ?? 0
  }

  /** The answer of the handler with this name; both ways are JSON. */
  ask<A>(name: string, argument: unknown = null): Promise<A> {
    if (this.#end !== undefined)
      return Promise.reject(new Error(`${this.#name} ${this.#end}; it was asked "${name}".`))
    const id = this.#next++
    return new Promise<A>((resolve, reject) => {
      this.#asked.set(id, { resolve: resolve as (value: unknown) => void, reject })
      this.#process.send({ id, name, argument } satisfies Question, (error) => {
        if (error !== null && this.#asked.delete(id)) reject(error)
      })
    })
  }

  /** Microseconds of processor that the process has used, all its threads together. */
  cpu(): Promise<number> {
    return this.ask("cpu")
  }

  /** What is held once garbage has been collected. */
  memory(): Promise<Memory> {
    return this.ask("memory")
  }

  /** Ends the process and waits for that; by force when it does not end by itself. */
  async stop(): Promise<void> {
    if (this.#process.connected) this.#process.disconnect()
    const force = setTimeout(() => this.#process.kill("SIGKILL"), 5_000)
    await this.#ended
    clearTimeout(force)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}

export type Handlers = Readonly<Record<string, (argument: never) => unknown>>

/** Collects garbage until nothing more comes of it: finalizers and weak references let go only after a first time. */
export const collect = async (): Promise<void> => {
  const gc = collector()
  for (let i = 0; i < 4; i++) {
    gc()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/**
 * Takes away young garbage alone. A full collection ages compiled code, and V8 forgets what grew old and the feedback for
 * shapes that nothing has any more: right after a few of them a program is several times as slow as it was.
 */
export const collectYoung = (): void => {
  collector()({ type: "minor" })
}

const collector = (): NodeJS.GCFunction => {
  const { gc } = globalThis
  if (gc === undefined) throw new Error("Garbage cannot be collected; start Node with --expose-gc.")
  return gc
}

export const cpuMicros = (): number => {
  const { system, user } = process.cpuUsage()
  return system + user
}

/** Where V8 keeps machine code, bytecode, and the tables of both. */
const codeSpaces = /^(code|trusted)_/

export const memory = async (): Promise<Memory> => {
  await collect()
  const { external, heapUsed, rss } = process.memoryUsage()
  const code = getHeapSpaceStatistics()
    .filter(({ space_name }) => codeSpaces.test(space_name))
    .reduce((sum, { space_used_size }) => sum + space_used_size, 0)
  return { heapUsed, code, rss, external }
}

/** The child's side: answers questions until its parent has gone, then exits. */
export const answer = (handlers: Handlers): void => {
  const all: Handlers = { ready: () => true, cpu: cpuMicros, memory, ...handlers }
  process.on("disconnect", () => process.exit(0))
  process.on("message", ({ argument, id, name }: Question) => {
    const reply = (answer: Omit<Answer, "id">) => {
      if (process.connected) process.send?.({ id, ...answer })
    }
    const handler = all[name] as ((argument: unknown) => unknown) | undefined
    if (handler === undefined) return reply({ error: `there is no handler "${name}"` })
    new Promise((resolve) => resolve(handler(argument))).then(
      (value) => reply({ value: value ?? null }),
      (error: unknown) =>
        reply({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) })
    )
  })
}
