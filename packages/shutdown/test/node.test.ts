import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"

interface Run {
  readonly code: number | null
  readonly signal: string | null
  readonly report: string
  /** From the first signal to the end, in milliseconds. */
  readonly took: number
}

/** Starts the program, sends each signal when its word has been heard, and waits for the end of the process. */
const run = (
  args: ReadonlyArray<string>,
  signals: ReadonlyArray<readonly [word: string, signal: NodeJS.Signals]>
): Effect.Effect<Run> =>
  Effect.callback((resume) => {
    const child = spawn(
      process.execPath,
      ["-C", "@curfew/source", fileURLToPath(import.meta.resolve("./support/program.ts")), ...args],
      { stdio: ["ignore", "pipe", "pipe"] }
    )
    const waiting = [...signals]
    let heard = ""
    let report = ""
    let first: number | undefined
    child.stdout.on("data", (chunk) => {
      heard += chunk
      for (let next = waiting[0]; next !== undefined && heard.includes(next[0]); next = waiting[0]) {
        waiting.shift()
        first ??= performance.now()
        child.kill(next[1])
      }
    })
    child.stderr.on("data", (chunk) => {
      report += chunk
    })
    child.on("close", (code, signal) =>
      resume(Effect.succeed({ code, signal, report, took: performance.now() - (first ?? performance.now()) }))
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const once = [["ready", "SIGTERM"]] as const
const twice = [
  ["ready", "SIGINT"],
  ["stopping", "SIGINT"]
] as const

// What a busy machine may add to the 800 ms of drain and force.
const slack = 4_000

describe("L43: a process that is told to end", () => {
  it.live("L43: ends at once when it is idle, with a report and exit code 0", () =>
    Effect.gen(function* () {
      const ended = yield* run(["idle", "60000", "60000"], once)
      expect(ended).toMatchObject({ code: 0, signal: null })
      expect(ended.report).toMatch(
        /^Shutdown after SIGTERM in 0\.\d s: 2 drained, 0 cancelled, 0 abandoned\n/
      )
      expect(ended.took).toBeLessThan(slack)
    })
  )

  it.live("L43: lets a busy one finish what it has begun", () =>
    Effect.gen(function* () {
      const ended = yield* run(["busy", "60000", "60000"], once)
      expect(ended.code).toBe(0)
      expect(ended.report).toMatch(/drained +0\.\d s +POST \/orders +task\n/)
      expect(ended.took).toBeLessThan(slack)
    })
  )

  it.live("L43: names a finalizer that hangs", () =>
    Effect.gen(function* () {
      const ended = yield* run(["hanging finalizer"], once)
      expect(ended.code).toBe(1)
      expect(ended.report).toMatch(/abandoned +0\.\d s +close the pool +clean-up\n/)
      expect(ended.took).toBeLessThan(800 + slack)
    })
  )

  it.live("L43: ends although a finalizer without a bound hangs", () =>
    Effect.gen(function* () {
      const ended = yield* run(["hanging finalizer without a bound"], once)
      expect(ended.code).toBe(1)
      expect(ended.report).toMatch(/abandoned +0\.\d s +main +main\n/)
      expect(ended.took).toBeLessThan(800 + slack)
    })
  )

  it.live("L43: ends although everything hangs in a mask", () =>
    Effect.gen(function* () {
      const ended = yield* run(["masked hang"], once)
      expect(ended.code).toBe(1)
      expect(ended.report).toMatch(/abandoned +0\.\d s +commit +task\n/)
      expect(ended.report).toMatch(/abandoned +0\.\d s +main +main\n/)
      expect(ended.took).toBeLessThan(800 + slack)
    })
  )

  it.live("L43: moves on to force at a second signal", () =>
    Effect.gen(function* () {
      const ended = yield* run(["slow drain", "60000", "60000", "force", "0"], twice)
      expect(ended.code).toBe(0)
      expect(ended.report).toMatch(/(stop|drain) +0\.\d s +moved on by a signal\n/)
      expect(ended.report).toMatch(/cancelled +0\.\d s +POST \/slow +task\n/)
      expect(ended.took).toBeLessThan(slack)
    })
  )

  it.live("L43: gives up at a second signal when told so, whatever hangs", () =>
    Effect.gen(function* () {
      const ended = yield* run(["masked hang", "60000", "60000", "exit", "0"], twice)
      expect(ended.code).toBe(1)
      expect(ended.report).toMatch(/force +0\.\d s +moved on by a signal\n/)
      expect(ended.took).toBeLessThan(slack)
    })
  )

  it.live("L43: shuts down without any signal when the program has ended, and a failure is exit code 1", () =>
    Effect.gen(function* () {
      const ended = yield* run(["failing"], [])
      expect(ended.code).toBe(1)
      expect(ended.report).toMatch(/^Shutdown at the end of the program/m)
      expect(ended.report).toMatch(/no port/)
    })
  )
})
