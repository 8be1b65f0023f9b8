import { CancelReason, currentReason } from "@curfew/reason"
import { cancellable, Endpoint, PeerSignal, statusOfAnswer } from "@curfew/request"
import {
  background,
  bounded,
  CancelScope,
  CleanupBudget,
  inspect,
  OnUnhandled,
  Owner,
  stuck,
  TaskScope
} from "@curfew/scope"
import { stopCancellation } from "@curfew/shield"
import { Report, Shutdown } from "@curfew/shutdown"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { runs } from "../../../test/support/seed.ts"
import { sweep } from "../../../test/support/sweep.ts"
import { testSignals } from "./support/signals.ts"

const limits = { drain: "10 seconds", force: "4 seconds" } as const

const lines = (report: Report.Report): ReadonlyArray<string> =>
  report.items.map((item) => `${item.kind} ${item.name}: ${item.fate} ${Duration.toMillis(item.took)}`)

const phases = (report: Report.Report): ReadonlyArray<string> =>
  report.phases.map((phase) => `${phase.phase} ${Duration.toMillis(phase.took)} ${phase.endedBy}`)

/** Runs a program under a shutdown with signals of the test's own, in a fiber. */
const start = <A, E>(main: Effect.Effect<A, E, Owner>, options: Shutdown.ShutdownOptions = limits) =>
  Effect.gen(function* () {
    const signals = testSignals()
    const fiber = yield* Effect.forkChild(Shutdown.run(main, { signals, ...options }), {
      startImmediately: true
    })
    return { signals, fiber, ended: Fiber.join(fiber) }
  })

describe("L43: a shutdown", () => {
  it.effect("L43: of an idle program ends at once and reports the program as drained", () =>
    Effect.gen(function* () {
      const { ended, signals } = yield* start(Effect.never)
      signals.send("SIGINT")
      const { exit, report } = yield* ended
      expect(report.trigger).toEqual({ _tag: "Signal", signal: "SIGINT" })
      expect(lines(report)).toEqual(["main main: drained 0"])
      expect(phases(report)).toEqual(["stop 0 done", "drain 0 done", "force 0 done"])
      expect(Option.isSome(exit) && Exit.hasInterrupts(exit.value)).toBe(true)
      expect(signals.count()).toBe(0)
    })
  )

  it.effect("L43: lets owned work end by itself and says how long it took", () =>
    Effect.gen(function* () {
      const main = Effect.gen(function* () {
        yield* background("mail", Effect.sleep("3 seconds"))
        yield* background("index", Effect.sleep("1 seconds"))
        return yield* Effect.never
      })
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("3 seconds")
      const { report } = yield* ended
      expect(lines(report)).toEqual([
        "task mail: drained 3000",
        "main main: drained 3000",
        "task index: drained 1000"
      ])
      expect(phases(report)).toEqual(["stop 0 done", "drain 3000 done", "force 0 done"])
    })
  )

  it.effect("L43: cancels with Shutdown what has not drained in time, and waits for its clean-up", () =>
    Effect.gen(function* () {
      const reasons: Array<unknown> = []
      const cleanUp = Effect.andThen(
        Effect.flatMap(currentReason, (reason) =>
          Effect.sync(() => reasons.push(Option.getOrUndefined(reason)))
        ),
        Effect.sleep("1 seconds")
      )
      const main = Effect.gen(function* () {
        yield* background("feed", Effect.ensuring(Effect.never, cleanUp))
        return yield* Effect.never
      })
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust("1 seconds")
      const { report } = yield* ended
      expect(lines(report)).toEqual(["task feed: cancelled 11000", "main main: cancelled 11000"])
      expect(phases(report)).toEqual(["stop 0 done", "drain 10000 limit", "force 1000 done"])
      expect(reasons).toEqual([CancelReason.Shutdown({ phase: "force" })])
    })
  )

  it.effect("L43: abandons what hangs in a mask, names it, and enters it as stuck", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const main = Effect.gen(function* () {
        yield* background("commit", Effect.uninterruptible(Deferred.await(release)))
        return yield* Effect.uninterruptible(Deferred.await(release))
      })
      const { ended, signals } = yield* start(main, { ...limits, name: "server" })
      signals.send()
      yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust("4 seconds")
      const { exit, report } = yield* ended
      expect(exit).toEqual(Option.none())
      expect(lines(report)).toEqual(["task commit: abandoned 14000", "main server: abandoned 14000"])
      expect(Duration.toMillis(report.took)).toBe(14_000)
      expect((yield* stuck).map((record) => record.name).sort()).toEqual(["commit", "server"])
      expect((yield* inspect).roots.map(({ name, state }) => `${name}: ${state}`).sort()).toEqual([
        "commit: stuck",
        "server: stuck"
      ])
      yield* Deferred.succeed(release, undefined)
      expect(yield* stuck).toEqual([])
      expect((yield* inspect).roots).toEqual([])
    })
  )

  it.effect("L43: names a finalizer that hangs, and the next one that hangs after it", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const wait = Deferred.await(release)
      const main = Effect.never.pipe(
        Effect.ensuring(bounded(wait, { name: "close the pool" })),
        Effect.ensuring(bounded(wait, { name: "flush the log" }))
      )
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("4 seconds")
      const { report } = yield* ended
      expect(lines(report)).toEqual([
        "clean-up close the pool: abandoned 3000",
        "clean-up flush the log: abandoned 1000",
        "main main: drained 3000"
      ])
      expect(phases(report)).toEqual(["stop 0 done", "drain 0 done", "force 3000 done"])
      yield* Deferred.succeed(release, undefined)
    })
  )

  it.effect("L43: moves from drain to force at a second signal, and gives up at a third", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const main = Effect.gen(function* () {
        yield* background("commit", Effect.uninterruptible(Deferred.await(release)))
        return yield* Effect.never
      })
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("2 seconds")
      signals.send()
      yield* TestClock.adjust("1 seconds")
      signals.send()
      const { report } = yield* ended
      expect(phases(report)).toEqual(["stop 0 done", "drain 2000 signal", "force 1000 signal"])
      expect(lines(report)).toEqual(["task commit: abandoned 3000", "main main: cancelled 3000"])
      yield* Deferred.succeed(release, undefined)
    })
  )

  it.effect("L43: gives up at the second signal when told so, having cancelled what was left", () =>
    Effect.gen(function* () {
      const reasons: Array<unknown> = []
      const seen = Effect.flatMap(currentReason, (reason) =>
        Effect.sync(() => reasons.push(Option.getOrThrow(reason)))
      )
      const release = yield* Deferred.make<void>()
      const main = Effect.gen(function* () {
        yield* background(
          "commit",
          Effect.ensuring(Effect.never, Effect.andThen(seen, Deferred.await(release)))
        )
        return yield* Effect.never
      })
      const { ended, signals } = yield* start(main, { ...limits, secondSignal: "exit" })
      signals.send()
      yield* TestClock.adjust("2 seconds")
      signals.send()
      const { report } = yield* ended
      expect(phases(report)).toEqual(["stop 0 done", "drain 2000 signal", "force 0 signal"])
      expect(lines(report)).toEqual(["task commit: abandoned 2000", "main main: cancelled 2000"])
      expect(reasons).toEqual([CancelReason.Shutdown({ phase: "force" })])
      yield* Deferred.succeed(release, undefined)
    })
  )

  it.effect("L43: runs stop hooks before drain hooks, and force hooks only when it did not drain", () =>
    Effect.gen(function* () {
      for (const takes of ["1 seconds", "20 seconds"] as const) {
        const log: Array<string> = []
        const note = (text: string) => Effect.sync(() => log.push(text))
        const main = Effect.scoped(
          Effect.gen(function* () {
            yield* Shutdown.onForce("connections", note("destroyed"))
            yield* Shutdown.onDrain("http", Effect.andThen(Effect.sleep(takes), note("drained")))
            yield* Shutdown.onStop("http", Effect.andThen(Effect.sleep("500 millis"), note("stopped")))
            return yield* Effect.never
          })
        )
        const { ended, signals } = yield* start(main)
        signals.send()
        yield* TestClock.adjust("20 seconds")
        const { report } = yield* ended
        if (takes === "1 seconds") {
          expect(log).toEqual(["stopped", "drained"])
          expect(phases(report)).toEqual(["stop 500 done", "drain 1000 done", "force 0 done"])
        } else {
          expect(log).toEqual(["stopped", "destroyed"])
          expect(phases(report)).toEqual(["stop 500 done", "drain 9500 limit", "force 0 done"])
          expect(lines(report)).toContain("hook http: cancelled 10000")
        }
      }
    })
  )

  it.effect("L43: is bounded although every hook hangs in a mask", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const hang = Effect.uninterruptible(Deferred.await(release))
      const main = Effect.scoped(
        Effect.gen(function* () {
          yield* Shutdown.onStop("listener", hang)
          yield* Shutdown.onDrain("http", hang)
          yield* Shutdown.onForce("connections", hang)
          return yield* Effect.never
        })
      )
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust("4 seconds")
      const { report } = yield* ended
      expect(phases(report)).toEqual(["stop 10000 limit", "force 4000 limit"])
      expect(lines(report)).toEqual([
        "hook listener: abandoned 14000",
        "hook connections: abandoned 4000",
        "main main: cancelled 10000"
      ])
      yield* Deferred.succeed(release, undefined)
    })
  )

  it.effect("L43: lets the work that drains start more, and waits for that too", () =>
    Effect.gen(function* () {
      const main = Effect.gen(function* () {
        yield* background(
          "first",
          Effect.andThen(Effect.sleep("1 seconds"), background("second", Effect.sleep("1 seconds")))
        )
        return yield* Effect.never
      })
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("2 seconds")
      const { report } = yield* ended
      expect(phases(report)).toEqual(["stop 0 done", "drain 2000 done", "force 0 done"])
    })
  )

  it.effect("L43: ends within drain and force, whatever the program is made of", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.array(
            fc.record({
              where: fc.constantFrom("task", "stop", "drain", "force", "main"),
              how: fc.constantFrom("ends", "sleeps", "cleans up", "cleans up in time", "hangs"),
              millis: fc.integer({ min: 0, max: 30_000 })
            }),
            { maxLength: 6 }
          ),
          fc.array(fc.integer({ min: 0, max: 20_000 }), { maxLength: 3 }),
          fc.constantFrom("force" as const, "exit" as const),
          (parts, later, secondSignal) =>
            Effect.runPromise(
              Effect.gen(function* () {
                const release = yield* Deferred.make<void>()
                const work = ({ how, millis }: (typeof parts)[number]): Effect.Effect<unknown> => {
                  switch (how) {
                    case "ends":
                      return Effect.void
                    case "sleeps":
                      return Effect.sleep(millis)
                    case "cleans up":
                      return Effect.ensuring(Effect.sleep(millis), Deferred.await(release))
                    case "cleans up in time":
                      return Effect.ensuring(
                        Effect.sleep(millis),
                        bounded(Deferred.await(release), { name: "bound" })
                      )
                    case "hangs":
                      return Effect.uninterruptible(Deferred.await(release))
                  }
                }
                const main = Effect.gen(function* () {
                  for (const part of parts) {
                    if (part.where === "task") yield* background("task", work(part))
                    if (part.where === "stop") yield* Shutdown.onStop("stop", work(part))
                    if (part.where === "drain") yield* Shutdown.onDrain("drain", work(part))
                    if (part.where === "force") yield* Shutdown.onForce("force", work(part))
                  }
                  yield* Effect.forEach(parts, (part) => (part.where === "main" ? work(part) : Effect.void), {
                    concurrency: "unbounded"
                  })
                  return yield* Effect.never
                })
                const { fiber, signals } = yield* start(Effect.scoped(main), { ...limits, secondSignal })
                signals.send()
                for (const at of later) {
                  yield* TestClock.adjust(Math.min(at, 14_000))
                  signals.send()
                }
                yield* TestClock.adjust("10 seconds")
                yield* TestClock.adjust("4 seconds")
                expect(fiber.pollUnsafe()).toBeDefined()
                const { report } = yield* Fiber.join(fiber)
                expect(Duration.toMillis(report.took)).toBeLessThanOrEqual(14_000)
                // Whoever hangs is named, and nobody twice.
                const live = report.items.filter(
                  (item) => item.fate === "abandoned" && item.kind !== "clean-up"
                )
                expect(live.length).toBeLessThanOrEqual(parts.length + 1)
                yield* Deferred.succeed(release, undefined)
                expect(yield* stuck).toEqual([])
              }).pipe(Effect.provide(TestClock.layer()), Effect.scoped)
            )
        ),
        runs(60)
      )
    )
  )

  it.effect("L43: reads as a table with what was left behind on top", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const main = Effect.gen(function* () {
        yield* background("POST /orders", Effect.sleep("1200 millis"))
        yield* background("POST /slow", Effect.uninterruptible(Deferred.await(release)))
        yield* background("GET /feed", Effect.ensuring(Effect.never, Effect.sleep("1 seconds")))
        return yield* Effect.never
      })
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust("4 seconds")
      const { report } = yield* ended
      expect(Report.toText(report)).toBe(
        [
          "Shutdown after SIGTERM in 14.0 s: 1 drained, 2 cancelled, 1 abandoned",
          "  stop    0.0 s  done",
          "  drain  10.0 s  time was up",
          "  force   4.0 s  time was up",
          "",
          "  abandoned  14.0 s  POST /slow    task",
          "  cancelled  12.0 s  main          main",
          "  cancelled  11.0 s  GET /feed     task",
          "  drained     1.2 s  POST /orders  task"
        ].join("\n")
      )
      yield* Deferred.succeed(release, undefined)
    })
  )
})

describe("the live tree", () => {
  it.effect("L47: shows a program under its shutdown while it runs, and nothing of either afterwards", () =>
    Effect.gen(function* () {
      const { ended, signals } = yield* start(Effect.never, { ...limits, name: "server" })
      expect((yield* inspect).roots.map(({ kind, name }) => `${kind} ${name}`)).toEqual([
        "scope server",
        "tasks shutdown"
      ])
      signals.send("SIGINT")
      yield* ended
      expect((yield* inspect).roots).toEqual([])
    })
  )
})

describe("no time at all", () => {
  it.effect("L43: a drain of zero is over at once, and what runs is cancelled", () =>
    Effect.gen(function* () {
      const main = Effect.andThen(background("GET /feed", Effect.never), Effect.never)
      const { ended, signals } = yield* start(main, { drain: 0, force: "4 seconds" })
      signals.send()
      const { report } = yield* ended
      expect(phases(report)).toEqual(["stop 0 done", "drain 0 limit", "force 0 done"])
      expect(lines(report).toSorted()).toEqual(["main main: cancelled 0", "task GET /feed: cancelled 0"])
    })
  )
})

describe("what nobody has named", () => {
  it.effect("L43: a program without options or signals runs, and its end is reported", () =>
    Effect.gen(function* () {
      const { exit, report } = yield* Shutdown.run(Effect.succeed(1))
      expect(exit).toEqual(Option.some(Exit.succeed(1)))
      expect(report.trigger).toEqual({ _tag: "MainEnded" })
      expect(lines(report)).toEqual(["main main: drained 0"])
    })
  )

  it.effect("L43: a task without a name that is left behind is listed once", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const hang = Effect.uninterruptible(Deferred.await(release))
      const main = Effect.gen(function* () {
        yield* (yield* Owner).spawn(hang)
        return yield* hang
      })
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust("4 seconds")
      const { report } = yield* ended
      expect(lines(report)).toEqual(["main main: abandoned 14000", "task unnamed: abandoned 14000"])
      yield* Deferred.succeed(release, undefined)
    })
  )

  it.effect("L43: a stuck program says in which span it hangs", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const hang = Effect.uninterruptible(Deferred.await(release))
      const main = Effect.gen(function* () {
        yield* background("commit", hang)
        return yield* Effect.withSpan(hang, "boot")
      })
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust("4 seconds")
      const { report } = yield* ended
      expect(lines(report)).toEqual(["task commit: abandoned 14000", "main main: abandoned 14000"])
      expect((yield* stuck).map(({ span }) => span)).toContain("boot")
      yield* Deferred.succeed(release, undefined)
      expect(yield* stuck).toEqual([])
    })
  )
})

describe("a report as text", () => {
  const report = (fields: Partial<Report.Report>): Report.Report => ({
    trigger: { _tag: "MainEnded" },
    startedAt: 0,
    took: Duration.millis(1_250),
    phases: [],
    items: [],
    ...fields
  })

  it("begins with what began the shutdown and how it went", () => {
    const head = (trigger: Report.Trigger) => Report.toText(report({ trigger })).split("\n")[0]
    const counts = "in 1.3 s: 0 drained, 0 cancelled, 0 abandoned"
    expect(head({ _tag: "MainEnded" })).toBe(`Shutdown at the end of the program ${counts}`)
    expect(head({ _tag: "Requested" })).toBe(`Shutdown on request ${counts}`)
    expect(head({ _tag: "Signal", signal: "SIGTERM" })).toBe(`Shutdown after SIGTERM ${counts}`)
    expect(head({ _tag: "Cancelled", reason: CancelReason.Superseded() })).toBe(
      `Shutdown because newer work has taken its place ${counts}`
    )
  })

  it("is that line alone when there was nothing to end", () => {
    expect(Report.toText(report({})).split("\n")).toHaveLength(1)
  })

  it("marks what failed, and a line break in a name does not break the table", () => {
    const item = { kind: "task", fate: "cancelled", took: Duration.seconds(1), count: 1 } as const
    const text = Report.toText(
      report({
        items: [
          { ...item, name: "line one\nline two", failed: true },
          { ...item, name: "b", failed: false }
        ]
      })
    )
    expect(text.split("\n").slice(1)).toEqual([
      "",
      "  cancelled  1.0 s  line one line two  task, failed",
      "  cancelled  1.0 s  b                  task"
    ])
  })
})

describe("without a shutdown", () => {
  it.effect("hooks never run, nothing begins, and the stage is running", () =>
    Effect.gen(function* () {
      const ran: Array<string> = []
      const note = (what: string) => Effect.sync(() => ran.push(what))
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Shutdown.onStop("stop", note("stop"))
          yield* Shutdown.onDrain("drain", note("drain"))
          yield* Shutdown.onForce("force", note("force"))
          yield* Shutdown.begin
          expect(yield* Shutdown.stage).toBe("running")
        })
      )
      expect(ran).toEqual([])
    })
  )
})

describe("L43: a server", () => {
  it.effect(
    "L43: has answered every cancelled handler with 503 before it is cancelled itself, and then breaks off",
    () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const note = (text: string) => Effect.sync(() => log.push(text))
        const handlers = {
          "POST /orders": Effect.ensuring(Effect.never, Effect.sleep("1 second")),
          "GET /search": cancellable(Effect.ensuring(Effect.never, Effect.sleep("1 second")))
        }
        const main = TaskScope.use((edges: TaskScope.TaskScope<never>) =>
          Effect.gen(function* () {
            yield* Shutdown.onForce("connections", note("destroyed"))
            for (const [method, handler] of Object.entries(handlers)) {
              const call = Endpoint.run(handler, {
                method,
                kind: "request",
                transport: "http1",
                peer: PeerSignal.makeUnsafe()
              })
              const edge = Effect.flatMap(call, (answer) => note(`${method} ${statusOfAnswer(answer)?.http}`))
              yield* Effect.orDie(edges.spawn(edge))
            }
            return yield* Effect.ensuring(Effect.never, note("closed"))
          })
        )
        const { ended, signals } = yield* start(Effect.scoped(main))
        signals.send()
        yield* TestClock.adjust("10 seconds")
        expect(log).toEqual(["POST /orders 503"])
        yield* TestClock.adjust("1 seconds")
        const { report } = yield* ended
        expect(log).toEqual(["POST /orders 503", "GET /search 503", "closed", "destroyed"])
        expect(lines(report)).toEqual([
          "task GET /search: cancelled 11000",
          "task POST /orders: cancelled 11000",
          "main main: cancelled 11000",
          "hook connections: drained 0"
        ])
      })
  )
})

describe("a failure that somebody took", () => {
  it.effect("L43: is not marked; one that nobody took is, and reached OnUnhandled", () =>
    Effect.gen(function* () {
      const seen: Array<string | undefined> = []
      const taken: Array<string> = []
      const failing = Effect.andThen(Effect.sleep("1 second"), Effect.fail("gone"))
      const main = TaskScope.use((edges: TaskScope.TaskScope<never>) =>
        Effect.gen(function* () {
          for (const method of ["taken", "dropped"]) {
            const peer = PeerSignal.makeUnsafe()
            const edge = Endpoint.run(failing, { method, kind: "request", transport: "http1", peer })
            yield* Effect.orDie(edges.spawn(Effect.map(edge, ({ _tag }) => taken.push(`${method} ${_tag}`))))
            if (method === "dropped") peer.goneUnsafe(CancelReason.ClientGone({ transport: "http1" }))
          }
          yield* Effect.forkChild(Effect.exit(stopCancellation(failing, { name: "asked" })))
          yield* background("left", failing)
          return yield* Effect.never
        })
      )
      const { ended, signals } = yield* start(
        Effect.provideService(main, OnUnhandled, ({ name }) => Effect.sync(() => seen.push(name)))
      )
      signals.send()
      yield* TestClock.adjust("1 second")
      const { report } = yield* ended
      expect(taken.toSorted()).toEqual(["dropped Dropped", "taken Failure"])
      expect(seen.toSorted()).toEqual(["dropped", "left"])
      const failed = report.items.map((item) => `${item.name}${item.failed ? " failed" : ""}`)
      expect(failed.toSorted()).toEqual(["asked", "dropped failed", "left failed", "main", "taken"])
    })
  )
})

describe("one item of the report is", () => {
  const answering = <A>(method: string, handler: Effect.Effect<A>) =>
    Endpoint.run(handler, { method, kind: "request", transport: "http2", peer: PeerSignal.makeUnsafe() })

  it.effect("L43: a call and the task of its name that sends its answer, whatever becomes of them", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const handlers = {
        "GET /quick": Effect.sleep("1 second"),
        "GET /feed": cancellable(Effect.never),
        "GET /stuck": cancellable(Effect.uninterruptible(Deferred.await(release)))
      }
      const main = Effect.gen(function* () {
        for (const [method, handler] of Object.entries(handlers))
          yield* background(method, answering(method, handler))
        return yield* Effect.never
      })
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust("4 seconds")
      const { report } = yield* ended
      // The clean-up that waited for the stuck one overran as well, and is the same trouble.
      expect((yield* stuck).map(({ kind, name }) => `${kind} ${name}`).toSorted()).toEqual([
        "finalizer GET /stuck",
        "task GET /stuck"
      ])
      expect(lines(report)).toEqual([
        "task GET /stuck: abandoned 14000",
        "main main: cancelled 12000",
        "task GET /feed: cancelled 10000",
        "task GET /quick: drained 1000"
      ])
      yield* Deferred.succeed(release, undefined)
      expect(yield* stuck).toEqual([])
    })
  )

  it.effect("L43: a call that begins and ends during the shutdown counts once, with the task around it", () =>
    Effect.gen(function* () {
      const call = background("GET /late", answering("GET /late", Effect.sleep("1 second")))
      const main = Effect.gen(function* () {
        yield* background("client", Effect.andThen(Effect.sleep("1 second"), Effect.andThen(call, call)))
        return yield* Effect.never
      })
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("2 seconds")
      const { report } = yield* ended
      expect(report.items.map(({ count, fate, name }) => `${name} ×${count} ${fate}`).toSorted()).toEqual([
        "GET /late ×2 drained",
        "client ×1 drained",
        "main ×1 drained"
      ])
    })
  )

  it.effect("L43: but not two tasks of a name, although one started the other and waits for it", () =>
    Effect.gen(function* () {
      const work = Effect.sleep("1 second")
      const main = Effect.gen(function* () {
        yield* background("save", Effect.andThen(stopCancellation(work, { name: "save" }), work))
        return yield* Effect.never
      })
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("1 second")
      const { report } = yield* ended
      expect(lines(report).toSorted()).toEqual([
        "main main: drained 2000",
        "task save: drained 1000",
        "task save: drained 2000"
      ])
    })
  )

  it.effect("L43: nor a task that hangs elsewhere in the program and one of its name that has ended", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const main = TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
        Effect.gen(function* () {
          yield* background("commit", Effect.sleep("1 second"))
          yield* Effect.orDie(
            tasks.spawn(Effect.uninterruptible(Deferred.await(release)), { name: "commit" })
          )
          return yield* Effect.never
        })
      )
      const { ended, signals } = yield* start(main)
      signals.send()
      yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("2 seconds")
      const { report } = yield* ended
      expect(lines(report)).toEqual([
        "task commit: abandoned 2000",
        "main main: drained 3000",
        "task commit: drained 1000"
      ])
      yield* Deferred.succeed(release, undefined)
    })
  )
})

describe("a shutdown begins", () => {
  it.effect("L43: with the end of the program, whose exit is kept", () =>
    Effect.gen(function* () {
      const main = Effect.andThen(background("mail", Effect.sleep("1 seconds")), Effect.fail("no port"))
      const { ended } = yield* start(main)
      yield* TestClock.adjust("1 seconds")
      const { exit, report } = yield* ended
      expect(exit).toEqual(Option.some(Exit.fail("no port")))
      expect(report.trigger).toEqual({ _tag: "MainEnded" })
      expect(lines(report)).toEqual(["task mail: drained 1000", "main main: drained 0"])
    })
  )

  it.effect("L43: by the program's own wish, and a first signal after that moves nothing on", () =>
    Effect.gen(function* () {
      const main = Effect.gen(function* () {
        yield* background("mail", Effect.sleep("2 seconds"))
        yield* Shutdown.begin
        yield* Shutdown.begin
        return yield* Effect.never
      })
      const { ended, signals } = yield* start(main)
      yield* TestClock.adjust("1 seconds")
      signals.send()
      yield* TestClock.adjust("1 seconds")
      const { report } = yield* ended
      expect(report.trigger).toEqual({ _tag: "Requested" })
      expect(phases(report)).toEqual(["stop 0 done", "drain 2000 done", "force 0 done"])
    })
  )

  it.effect("L43: and shows its stage to health checks", () =>
    Effect.gen(function* () {
      const stages: Array<string> = []
      const look = Effect.flatMap(Shutdown.stage, (stage) => Effect.sync(() => stages.push(stage)))
      const main = Effect.gen(function* () {
        yield* look
        yield* Shutdown.onStop("stop", look)
        yield* Shutdown.onDrain("drain", look)
        return yield* Effect.ensuring(Effect.never, look)
      })
      const { ended, signals } = yield* start(Effect.scoped(main))
      signals.send()
      yield* ended
      expect(stages).toEqual(["running", "stop", "drain", "force"])
    })
  )

  it.effect(
    "L43: and a hook that comes after its stage began runs at once; one whose scope has closed does not run",
    () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const note = (text: string) => Effect.sync(() => log.push(text))
        const main = Effect.gen(function* () {
          yield* Effect.scoped(Shutdown.onStop("closed", note("closed")))
          yield* background(
            "late",
            Effect.andThen(Effect.sleep("1 seconds"), Effect.scoped(Shutdown.onStop("late", note("late"))))
          )
          return yield* Effect.never
        })
        const { ended, signals } = yield* start(main)
        signals.send()
        yield* TestClock.adjust("1 seconds")
        yield* ended
        expect(log).toEqual(["late"])
      })
  )

  it.effect("L43: and a hook that fails is marked in the report and reaches OnUnhandled once", () =>
    Effect.gen(function* () {
      const seen: Array<string | undefined> = []
      const main = Effect.scoped(
        Effect.andThen(Shutdown.onStop("listener", Effect.die("EBADF")), Effect.never)
      )
      const { ended, signals } = yield* start(
        Effect.provideService(main, OnUnhandled, (unhandled) => Effect.sync(() => seen.push(unhandled.name)))
      )
      signals.send()
      const { report } = yield* ended
      expect(report.items.find((item) => item.kind === "hook")).toMatchObject({
        name: "listener",
        failed: true
      })
      expect(seen).toEqual(["listener"])
    })
  )
})

describe("L16: the clean-up budget", () => {
  it.effect("L16: shrinks as the shutdown goes on", () =>
    Effect.gen(function* () {
      const budgets: Array<number> = []
      const look = Effect.flatMap(CleanupBudget, (budget) =>
        Effect.sync(() => budgets.push(Duration.toMillis(budget)))
      )
      const main = Effect.gen(function* () {
        yield* look
        yield* Shutdown.onStop("stop", look)
        yield* background(
          "work",
          Effect.ensuring(Effect.never, Effect.andThen(look, Effect.andThen(Effect.sleep("2 seconds"), look)))
        )
        yield* background("drains", Effect.andThen(Effect.sleep("9 seconds"), look))
        return yield* Effect.never
      })
      const { ended, signals } = yield* start(Effect.scoped(main))
      signals.send()
      yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust("2 seconds")
      yield* ended
      expect(budgets).toEqual([10_000, 10_000, 3_000, 2_000, 1_000])
    })
  )

  it.effect("L16: is never longer than the surrounding one", () =>
    Effect.gen(function* () {
      const budgets: Array<number> = []
      const look = Effect.flatMap(CleanupBudget, (budget) =>
        Effect.sync(() => budgets.push(Duration.toMillis(budget)))
      )
      const { ended, signals } = yield* Effect.provideService(
        start(Effect.andThen(look, Effect.ensuring(Effect.never, look))),
        CleanupBudget,
        Duration.millis(50)
      )
      signals.send()
      yield* ended
      expect(budgets).toEqual([50, 50])
    })
  )
})

describe("a run that is cancelled", () => {
  const reason = CancelReason.Superseded()

  it.effect("L43: before the start does not start the program", () =>
    Effect.gen(function* () {
      let ran = false
      const outcome = yield* CancelScope.run((scope) =>
        Effect.andThen(
          scope.cancel(reason),
          Shutdown.run(
            Effect.sync(() => (ran = true)),
            limits
          )
        )
      )
      expect(outcome).toEqual({ _tag: "Cancelled", reason })
      expect(ran).toBe(false)
    })
  )

  it.effect(
    "L43: while the program runs goes through the stages, gives the report to onReport, and ends interrupted",
    () =>
      Effect.gen(function* () {
        const reports: Array<Report.Report> = []
        const scopes: Array<CancelScope.CancelScope> = []
        const main = Effect.andThen(background("mail", Effect.sleep("2 seconds")), Effect.never)
        const fiber = yield* Effect.forkChild(
          CancelScope.run((scope) => {
            scopes.push(scope)
            return Shutdown.run(main, { ...limits, onReport: (report) => reports.push(report) })
          }),
          { startImmediately: true }
        )
        yield* scopes[0]?.cancel(reason) ?? Effect.void
        // Twice changes nothing.
        yield* scopes[0]?.cancel(reason) ?? Effect.void
        yield* TestClock.adjust("2 seconds")
        expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Cancelled", reason })
        expect(reports.map((report) => report.trigger)).toEqual([{ _tag: "Cancelled", reason }])
        expect(reports.flatMap(lines)).toEqual(["task mail: drained 2000", "main main: drained 2000"])
      })
  )

  it.effect("L43: during the shutdown changes nothing of it", () =>
    Effect.gen(function* () {
      const reports: Array<Report.Report> = []
      const main = Effect.andThen(background("mail", Effect.sleep("2 seconds")), Effect.never)
      const { fiber, signals } = yield* start(main, { ...limits, onReport: (report) => reports.push(report) })
      signals.send()
      yield* TestClock.adjust("1 seconds")
      fiber.interruptUnsafe()
      fiber.interruptUnsafe()
      yield* TestClock.adjust("1 seconds")
      expect(Exit.hasInterrupts(yield* Fiber.await(fiber))).toBe(true)
      expect(reports.map((report) => report.trigger._tag)).toEqual(["Signal"])
      expect(reports.flatMap(phases)).toEqual(["stop 0 done", "drain 2000 done", "force 0 done"])
    })
  )

  it.effect("L43: after it has ended changes nothing", () =>
    Effect.gen(function* () {
      const { ended, fiber, signals } = yield* start(Effect.never)
      signals.send()
      yield* ended
      fiber.interruptUnsafe()
      signals.send()
      expect(Exit.isSuccess(yield* Fiber.await(fiber))).toBe(true)
    })
  )

  it("L43: at whichever step makes its report if the program began, and leaves nothing behind", async () => {
    const makeProgram = () => {
      const reports: Array<Report.Report> = []
      let runs = 0
      let began = 0
      const main = Effect.gen(function* () {
        began++
        yield* Shutdown.onStop("listener", Effect.yieldNow)
        yield* background("mail", Effect.yieldNow)
        return "answer"
      })
      return {
        program: Effect.map(
          Effect.suspend(() => {
            runs++
            return Shutdown.run(Effect.scoped(main), {
              ...limits,
              onReport: (report) => reports.push(report)
            })
          }),
          ({ exit }) => Option.getOrThrow(exit)
        ),
        after: () => {
          // Cancelled before its first operation the program does not begin; the report is made all the same.
          expect(reports.length).toBeGreaterThanOrEqual(began)
          expect(reports.length).toBeLessThanOrEqual(runs)
          expect(
            reports.flatMap((report) => report.items).filter((item) => item.fate === "abandoned")
          ).toEqual([])
        }
      }
    }
    expect(await sweep(makeProgram)).toBeGreaterThan(20)
    expect(await sweep(makeProgram, { cancel: "scope", fresh: false })).toBeGreaterThan(20)
  })
})
