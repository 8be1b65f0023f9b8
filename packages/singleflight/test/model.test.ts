import { CleanupBudget, OnUnhandled, stuck } from "@curfew/scope"
import { Shared, SharedCancelled, type SharedStatistics } from "@curfew/singleflight"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import { runs as casesOf } from "../../../test/support/seed.ts"
import { exitOf, Lab, observing, owner, primeTestClock } from "./support/lab.ts"

// Commands come at whole milliseconds. Clean-up and budget end between them, so that no two events coincide.
const linger = 10
const budget = 100.25
const retained = 20

type Command =
  | { readonly do: "observe" | "finish" | "fail" | "cancel" | "invalidate" }
  | { readonly do: "leave"; readonly which: number }
  | { readonly do: "advance"; readonly millis: number }

interface Setting {
  readonly whenUnobserved: "keep" | "cancel" | { readonly linger: number }
  readonly generations: "exclusive" | "overlap"
  readonly cleanup: number
  readonly retainSuccess: number
  readonly retainFailure: number
}

interface Generation {
  phase: "waiting" | "running" | "cleaningUp" | "stuck"
  readonly observers: Set<number>
  run: number
  lingerAt: number
  endsAt: number
  stuckAt: number
}

/** What the laws say, as plain as possible: a clock, a list of generations, and what each observer got. */
class Model {
  now = 0
  readonly setting: Setting
  generations: Array<Generation> = []
  current: Generation | undefined
  held: { readonly result: string; readonly until: number } | undefined
  readonly results: Array<string> = []
  readonly reasons: Array<string | undefined> = []
  unheard = 0
  joined = 0
  hits = 0
  mostActive = 0

  constructor(setting: Setting) {
    this.setting = setting
  }

  observe(): void {
    const observer = this.results.length
    this.results.push("pending")
    if (this.held !== undefined && this.now >= this.held.until) this.held = undefined
    if (this.held !== undefined) {
      this.hits++
      this.results[observer] = this.held.result
      return
    }
    if (this.current === undefined) {
      this.current = {
        phase: "waiting",
        observers: new Set(),
        run: -1,
        lingerAt: Infinity,
        endsAt: Infinity,
        stuckAt: Infinity
      }
      this.generations.push(this.current)
    } else {
      this.joined++
    }
    this.current.lingerAt = Infinity
    this.current.observers.add(observer)
    this.startNext()
  }

  startNext(): void {
    if (this.current?.phase !== "waiting") return
    const busy = this.generations.some((g) => g.phase === "running" || g.phase === "cleaningUp")
    if (this.setting.generations === "exclusive" && busy) return
    this.current.phase = "running"
    this.current.run = this.reasons.length
    this.reasons.push(undefined)
    const active = this.generations.filter((g) => g.phase !== "waiting").length
    this.mostActive = Math.max(this.mostActive, active)
  }

  leave(observer: number): void {
    const generation = this.generations.find((g) => g.observers.has(observer))
    if (generation === undefined) return
    this.results[observer] = "left"
    generation.observers.delete(observer)
    if (generation.observers.size > 0) return
    const { whenUnobserved } = this.setting
    if (whenUnobserved === "cancel") this.stop(generation, "Unobserved")
    else if (whenUnobserved !== "keep") generation.lingerAt = this.now + whenUnobserved.linger
  }

  end(generation: Generation): void {
    this.generations = this.generations.filter((g) => g !== generation)
    this.startNext()
  }

  tell(generation: Generation, result: string): void {
    for (const observer of generation.observers) this.results[observer] = result
    generation.observers.clear()
  }

  stop(generation: Generation, reason: string): void {
    if (generation === this.current) this.current = undefined
    this.tell(generation, `cancelled: ${reason}`)
    generation.lingerAt = Infinity
    if (generation.phase === "waiting") {
      this.generations = this.generations.filter((g) => g !== generation)
      return
    }
    generation.phase = "cleaningUp"
    this.reasons[generation.run] = reason
    generation.endsAt = this.now + this.setting.cleanup
    generation.stuckAt = this.now + budget
    if (this.setting.cleanup === 0) this.end(generation)
  }

  finish(generation: Generation, result: string): void {
    const millis = result.startsWith("failed") ? this.setting.retainFailure : this.setting.retainSuccess
    if (generation === this.current) {
      this.current = undefined
      if (millis > 0) this.held = { result, until: this.now + millis }
    }
    if (generation.observers.size === 0 && result.startsWith("failed")) this.unheard++
    this.tell(generation, result)
    this.end(generation)
  }

  running(): Generation | undefined {
    return this.generations.find((g) => g.phase === "running")
  }

  cancel(): void {
    // The current one first: nothing is started only to be cancelled.
    const all = this.generations.filter((g) => g.phase === "waiting" || g.phase === "running")
    for (const g of all.sort((a) => (a === this.current ? -1 : 0))) this.stop(g, "Requested")
  }

  invalidate(): void {
    if (this.current?.phase === "running") this.current = undefined
    this.held = undefined
  }

  advance(millis: number): void {
    const until = this.now + millis
    for (;;) {
      let at = until
      let event: (() => void) | undefined
      for (const g of this.generations) {
        if (g.lingerAt <= at) {
          at = g.lingerAt
          event = () => this.stop(g, "Unobserved")
        }
        if (g.phase === "cleaningUp" && g.stuckAt <= at) {
          at = g.stuckAt
          event = () => {
            g.phase = "stuck"
            this.startNext()
          }
        }
        if (g.endsAt <= at) {
          at = g.endsAt
          event = () => this.end(g)
        }
      }
      this.now = at
      if (event === undefined) return
      event()
    }
  }

  get statistics(): SharedStatistics {
    const count = (phase: Generation["phase"]) => this.generations.filter((g) => g.phase === phase).length
    return {
      observers: this.results.filter((result) => result === "pending").length,
      waiting: count("waiting"),
      running: count("running"),
      cleaningUp: count("cleaningUp"),
      stuck: count("stuck"),
      retained: this.held !== undefined && this.now < this.held.until ? 1 : 0,
      started: this.reasons.length,
      joined: this.joined,
      hits: this.hits
    }
  }
}

const said = (exit: Exit.Exit<string, string | SharedCancelled> | undefined): string => {
  if (exit === undefined) return "pending"
  if (Exit.isSuccess(exit)) return exit.value
  if (Cause.hasInterrupts(exit.cause)) return "left"
  const error = Cause.squash(exit.cause)
  return error instanceof SharedCancelled ? `cancelled: ${error.reason._tag}` : String(error)
}

const play = (setting: Setting, commands: ReadonlyArray<Command>) =>
  Effect.gen(function* () {
    yield* primeTestClock
    const model = new Model(setting)
    const lab = new Lab(setting.cleanup === 0 ? Effect.void : Effect.sleep(Duration.millis(setting.cleanup)))
    const tasks = yield* owner
    const unheard: Array<string> = []
    const shared = yield* Shared.make(lab.work, {
      owner: tasks,
      whenUnobserved: setting.whenUnobserved,
      generations: setting.generations,
      retain: (exit) => (Exit.isSuccess(exit) ? setting.retainSuccess : setting.retainFailure)
    }).pipe(
      Effect.provideService(CleanupBudget, Duration.millis(budget)),
      Effect.provideService(OnUnhandled, ({ origin }) => Effect.sync(() => unheard.push(origin)))
    )
    const observers: Array<Fiber.Fiber<string, string | SharedCancelled>> = []
    const step = (command: Command) =>
      Effect.gen(function* () {
        switch (command.do) {
          case "observe":
            model.observe()
            observers.push(yield* observing(shared.get))
            return
          case "leave": {
            if (observers.length === 0) return
            const which = command.which % observers.length
            model.leave(which)
            // The clock stands still: this returns only if leaving waits for nothing.
            yield* Fiber.interrupt(observers[which] as (typeof observers)[number])
            return
          }
          case "finish":
          case "fail": {
            const generation = model.running()
            if (generation === undefined) return
            const { run } = generation
            const result = `${command.do === "fail" ? "failed" : "done"} ${run}`
            model.finish(generation, result)
            lab.run(run).end(command.do === "fail" ? Effect.fail(result) : Effect.succeed(result))
            return
          }
          case "cancel":
            model.cancel()
            yield* shared.cancel()
            return
          case "invalidate":
            model.invalidate()
            yield* shared.invalidate
            return
          case "advance":
            model.advance(command.millis)
            yield* TestClock.adjust(Duration.millis(command.millis))
        }
      })
    for (const command of [
      ...commands,
      { do: "cancel" } as const,
      { do: "advance", millis: 2000 } as const
    ]) {
      yield* step(command)
      expect(observers.map((observer) => said(exitOf(observer)))).toEqual(model.results)
      expect(yield* shared.statistics).toEqual(model.statistics)
      expect(lab.runs.map((run) => run.reason?._tag)).toEqual(model.reasons)
      expect(yield* stuck).toHaveLength(model.statistics.stuck)
      expect(unheard.filter((origin) => origin === "abandoned work")).toHaveLength(model.unheard)
    }
    // With a clean-up that ends within its budget, exclusive runs never overlap.
    expect(lab.mostActive).toBe(model.mostActive)
    if (setting.generations === "exclusive" && setting.cleanup < budget)
      expect(lab.mostActive).toBeLessThan(2)
    expect(lab.active).toBe(0)
    expect(yield* tasks.size).toBe(0)
  })

const settings: fc.Arbitrary<Setting> = fc.record({
  whenUnobserved: fc.constantFrom("keep" as const, "cancel" as const, { linger }),
  generations: fc.constantFrom("exclusive" as const, "overlap" as const),
  cleanup: fc.constantFrom(0, 3.5, 1000.5),
  retainSuccess: fc.constantFrom(0, retained),
  retainFailure: fc.constantFrom(0, retained)
})

const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 5, arbitrary: fc.constant({ do: "observe" } as const) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("leave" as const), which: fc.nat(9) }) },
  { weight: 2, arbitrary: fc.constantFrom({ do: "finish" } as const, { do: "fail" } as const) },
  { weight: 1, arbitrary: fc.constantFrom({ do: "cancel" } as const, { do: "invalidate" } as const) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("advance" as const), millis: fc.constantFrom(1, 4, 9, 120) })
  }
)

const { numRuns: runs } = casesOf(300)

describe("shared work against its model", () => {
  test("L29 L30 L31 L32 L33: every interleaving of observing, leaving, ending, cancelling and waiting goes as the model says", async () => {
    await fc.assert(
      fc.asyncProperty(settings, fc.array(command, { maxLength: 40 }), (setting, commands) =>
        Effect.runPromise(Effect.scoped(Effect.provide(play(setting, commands), TestClock.layer())))
      ),
      { numRuns: runs }
    )
  }, 120_000)
})
