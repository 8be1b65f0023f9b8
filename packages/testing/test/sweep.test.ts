import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { describe, expect, test } from "vitest"
import { formatSweep, Probe, type Sweepable, type SweepOptions, sweep, timeline } from "../src/index.ts"

type Program = Sweepable<unknown, unknown, never, unknown, Scope.Scope>

const swept = (program: Program, options?: SweepOptions) =>
  Effect.runPromise(Effect.orDie(sweep(program, options)))

const kinds = async (program: Program, options?: SweepOptions) => [
  ...new Set((await swept(program, options)).findings.map(({ kind }) => kind))
]

const once: SweepOptions = { modes: ["root"] }

describe("a planted bug is found", () => {
  test("a resource that is acquired and not released when cancelled in between", async () => {
    const report = await swept(
      {
        setup: Effect.map(Probe.resource("socket"), (socket) =>
          Effect.flatMap(socket.acquire, () => Effect.ensuring(Effect.yieldNow, socket.release))
        )
      },
      once
    )
    expect(report.findings.map(({ kind, message, probe, step }) => ({ kind, message, probe, step }))).toEqual(
      [
        { kind: "NotReleased", message: "1 socket acquired and not released", probe: "socket", step: 4 },
        { kind: "NotReleased", message: "1 socket acquired and not released", probe: "socket", step: 4 }
      ]
    )
  })

  test("a resource that is released twice", async () => {
    const found = await kinds({
      setup: Effect.map(Probe.resource("socket"), (socket) =>
        Effect.onInterrupt(
          Effect.scoped(Effect.andThen(socket.scoped, Effect.yieldNow)),
          () => socket.release
        )
      )
    })
    expect(found).toEqual(["ReleasedTwice"])
  })

  test("a permit that is lost", async () => {
    const report = await swept(
      {
        setup: Effect.gen(function* () {
          const semaphore = yield* Semaphore.make(2)
          yield* Probe.permits("slots", semaphore)
          return Effect.andThen(semaphore.take(1), Effect.andThen(Effect.yieldNow, semaphore.release(1)))
        })
      },
      { modes: ["root"], states: ["fresh"] }
    )
    expect(report.findings[0]).toMatchObject({
      kind: "PermitLost",
      message: "slots had 2 free permits before the run and 1 after it"
    })
  })

  test("a fiber that is left", async () => {
    // Without a cancel the fiber is stopped; with one it is forgotten.
    const report = await swept(
      Effect.gen(function* () {
        const fiber = yield* Effect.forkDetach(Effect.never)
        yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
      }),
      once
    )
    const fresh = report.findings.filter(({ state }) => state === "fresh")
    expect(fresh.length).toBeGreaterThan(0)
    for (const { kind, waiting } of fresh) {
      expect(kind).toBe("FiberLeft")
      expect(waiting[0]?.fiber).toBe("#2 (forked by #1)")
    }
    expect(fresh[0]?.waiting[0]?.forkedAt).toMatch(/^packages\/testing\/test\/sweep\.test\.ts:\d+:\d+$/)
  })

  test("a run that does not end", async () => {
    const report = await swept(
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        // Wrong: when the first is cancelled, nobody opens the gate that its clean-up waits for.
        yield* Effect.ensuring(
          Effect.andThen(Effect.yieldNow, Deferred.succeed(gate, undefined)),
          Deferred.await(gate)
        )
      }),
      once
    )
    expect(new Set(report.findings.map(({ kind }) => kind))).toEqual(new Set(["NotTerminated"]))
    expect(report.findings[0]?.waiting[0]?.source).toMatch(/sweep\.test\.ts:\d+:\d+$/)
  })

  test("a clean-up that goes on for ever", async () => {
    expect(
      await kinds(
        Effect.onInterrupt(Effect.yieldNow, () => Effect.forever(Effect.void)),
        once
      )
    ).toEqual(["NotTerminated"])
    expect(
      await kinds(
        Effect.onInterrupt(Effect.yieldNow, () => Effect.forever(Effect.sleep("1 second"))),
        once
      )
    ).toEqual(["NotTerminated"])
  })

  test("a resource that is used after its release", async () => {
    const found = await kinds({
      setup: Effect.map(Probe.resource("socket"), (socket) =>
        Effect.onInterrupt(
          Effect.scoped(Effect.andThen(socket.scoped, Effect.yieldNow)),
          () => socket.use // wrong: outside of the scope
        )
      )
    })
    expect(found).toEqual(["UsedAfterEnd"])
  })

  test("a context that is used after its end", async () => {
    const found = await kinds({
      setup: Effect.map(Probe.context("request"), ({ begin }) =>
        Effect.acquireUseRelease(
          begin,
          ({ use }) =>
            Effect.onInterrupt(Effect.yieldNow, () =>
              Effect.forkDetach(Effect.andThen(Effect.yieldNow, use))
            ),
          ({ end }) => end
        )
      )
    })
    expect(found).toEqual(["UsedAfterEnd"])
  })

  test("a wrong answer of the same program afterwards", async () => {
    const report = await swept({
      setup: Effect.map(Ref.make("idle"), (state) =>
        Effect.gen(function* () {
          if ((yield* Ref.get(state)) === "busy") return "refused"
          yield* Ref.set(state, "busy")
          yield* Effect.yieldNow
          yield* Ref.set(state, "idle")
          return "served"
        })
      )
    })
    expect(report.findings[0]).toMatchObject({
      kind: "WrongAnswer",
      message: "the run afterwards gave success of refused in place of success of served"
    })
  })

  test("a wrong answer to a question of its own", async () => {
    const report = await swept({
      setup: Effect.gen(function* () {
        const sum = yield* Ref.make(0)
        yield* Probe.answer("the sum", Ref.get(sum), 0)
        return Effect.andThen(
          Ref.update(sum, (n) => n + 1),
          Ref.update(sum, (n) => n - 1)
        )
      })
    })
    expect(report.findings[0]).toMatchObject({ kind: "WrongAnswer", message: "the sum: 1 in place of 0" })
  })

  test("a defect of a finalizer", async () => {
    const report = await swept(
      Effect.onInterrupt(Effect.yieldNow, () => Effect.die(new Error("torn"))),
      once
    )
    expect(report.findings[0]).toMatchObject({
      kind: "Defect",
      message: "the cancelled run ended with failure by interruption, defect Error: torn"
    })
  })

  test("an invariant of its own", async () => {
    const report = await swept({
      setup: Effect.gen(function* () {
        const open = new Set<number>()
        yield* Probe.invariant("nothing open", () => open.size === 0 || `${open.size} open`)
        return Effect.andThen(
          Effect.sync(() => open.add(1)),
          Effect.sync(() => open.delete(1))
        )
      })
    })
    expect(report.findings[0]).toMatchObject({ kind: "Invariant", message: "nothing open: 1 open" })
  })

  test("a bug that is there without any cancel, once, and not for each cancel", async () => {
    const report = await swept(Effect.forkDetach(Effect.never))
    expect(report.findings.map(({ kind, mode }) => [kind, mode])).toEqual([["FiberLeft", "none"]])
  })
})

describe("who is cancelled, and what is kept, makes a difference", () => {
  test("a cancel of another fiber than the root finds what a cancel of the root does not", async () => {
    const program = {
      setup: Effect.map(Probe.resource("lock"), (lock) =>
        Effect.gen(function* () {
          yield* lock.acquire
          // Wrong: the mask does not reach into the child, which anybody who holds it can cancel.
          const work = yield* Effect.forkChild(Effect.andThen(Effect.yieldNow, lock.release))
          yield* Fiber.await(work)
        }).pipe(Effect.uninterruptible)
      )
    }
    expect(await kinds(program, { modes: ["root", "twice"] })).toEqual([])
    expect(await kinds(program, { modes: ["any"], states: ["fresh"] })).toContain("NotReleased")
  })

  test("a second cancel finds what one does not", async () => {
    const program = {
      setup: Effect.map(Probe.resource("lock"), (lock) =>
        Effect.acquireUseRelease(
          lock.acquire,
          () => Effect.yieldNow,
          () =>
            // Wrong: a clean-up that can itself be cancelled.
            Effect.interruptible(Effect.andThen(Effect.yieldNow, lock.release))
        )
      )
    }
    // One cancel suffices to end an interruptible clean-up; only its being masked first needs the second.
    expect(await kinds(program, { modes: ["root"] })).toEqual(["NotReleased"])
    const masked = {
      setup: Effect.map(Probe.resource("lock"), (lock) =>
        Effect.acquireUseRelease(
          lock.acquire,
          () => Effect.yieldNow,
          () =>
            Effect.gen(function* () {
              const release = yield* Effect.forkChild(Effect.andThen(Effect.yieldNow, lock.release))
              yield* Fiber.await(release)
            })
        )
      )
    }
    expect(await kinds(masked, { modes: ["root"] })).toEqual([])
    expect(await kinds(masked, { modes: ["finalizers"] })).toEqual(["NotReleased"])
  })

  test("fresh state finds what hides behind the first run", async () => {
    const program = {
      setup: Effect.gen(function* () {
        const socket = yield* Probe.resource("socket", { until: "end" })
        yield* Effect.addFinalizer(() => Effect.suspend(() => (ready ? socket.release : Effect.void)))
        let ready = false
        // Wrong: between the connect and the mark the socket belongs to nobody.
        return Effect.suspend(() =>
          ready
            ? Effect.void
            : Effect.andThen(
                socket.acquire,
                Effect.sync(() => {
                  ready = true
                })
              )
        )
      })
    }
    expect(await kinds(program, { modes: ["root"], states: ["fresh"] })).toEqual(["NotReleased"])
  })

  test("kept state finds what only many cancels break", async () => {
    const program = { setup: Effect.map(Ref.make(0), many) }
    expect(await kinds(program, { modes: ["root"], states: ["fresh"] })).toEqual([])
    expect(await kinds(program, { modes: ["root"], states: ["kept"] })).toEqual(["WrongAnswer"])
  })
})

/** Refuses after the third run that did not finish. */
const many = (unfinished: Ref.Ref<number>) =>
  Effect.gen(function* () {
    if ((yield* Ref.get(unfinished)) >= 3) return "refused"
    yield* Ref.update(unfinished, (n) => n + 1)
    for (let i = 0; i < 5; i++) yield* Effect.yieldNow
    yield* Ref.update(unfinished, (n) => n - 1)
    return "served"
  })

describe("a sound program passes", () => {
  test("with time limits of days, in no time", async () => {
    const report = await swept(
      {
        setup: Effect.map(Probe.resource("file"), (file) =>
          Effect.timeoutOption(file.around(Effect.sleep("3 days")), "2 days")
        )
      },
      { modes: ["root", "any", "twice", "finalizers"] }
    )
    expect(report).toMatchObject({ ok: true, complete: true })
  })

  test("with children, a race and a semaphore, in every mode", async () => {
    const report = await swept(
      {
        setup: Effect.gen(function* () {
          const semaphore = yield* Semaphore.make(1)
          yield* Probe.permits("semaphore", semaphore)
          const item = yield* Probe.resource("item")
          const work = semaphore.withPermits(1)(item.around(Effect.yieldNow))
          return Effect.all([work, Effect.raceFirst(work, Effect.sleep("1 second"))], {
            concurrency: "unbounded",
            discard: true
          })
        })
      },
      { modes: ["root", "any", "twice", "finalizers"] }
    )
    expect(formatSweep(report)).toContain("nothing broken")
  })

  test("that waits for promises, whose time limits do not pass meanwhile", async () => {
    const answers = new Set<unknown>()
    const later = Effect.promise(async () => {
      await Promise.resolve()
      return "answered"
    })
    const report = await swept({
      setup: Effect.gen(function* () {
        const handle = yield* Probe.resource("handle")
        yield* Probe.invariant("no limit passed", ({ exit }) => {
          if (exit._tag === "Success") answers.add(exit.value)
          return true
        })
        return handle.around(
          Effect.timeoutOrElse(later, { duration: "1 second", orElse: () => Effect.succeed("late") })
        )
      })
    })
    expect(report.ok).toBe(true)
    expect([...answers]).toEqual(["answered"])
  })

  test("whose setup has a fiber of its own, which the scope of the setup ends", async () => {
    const report = await swept({
      setup: Effect.gen(function* () {
        const requests = yield* Ref.make(0)
        yield* Effect.forkScoped(Effect.forever(Effect.sleep("1 minute")))
        return Effect.andThen(
          Ref.update(requests, (n) => n + 1),
          Effect.sleep("10 minutes")
        )
      })
    })
    expect(report.ok).toBe(true)
  })

  test("whose work goes on for a while after its caller, when it may", async () => {
    const detached = Effect.forkDetach(Effect.sleep("1 second"))
    expect((await swept(detached)).ok).toBe(false)
    expect((await swept(detached, { settle: "1 minute" })).ok).toBe(true)
  })
})

describe("a sweep", () => {
  const leaky = {
    name: "leaky",
    setup: Effect.map(Probe.resource("socket"), (socket) =>
      Effect.gen(function* () {
        yield* socket.acquire
        yield* Effect.yieldNow
        yield* socket.release
      })
    )
  }

  test("uses the runs it may for two cancels, however short the clean-up is", async () => {
    const long = Effect.forEach(Array.from({ length: 400 }), () => Effect.yieldNow, { discard: true })
    const report = await swept(long, { modes: ["twice"], maxRuns: 400 })
    expect(report.steps).toBeGreaterThan(300)
    expect(report.runs).toBeGreaterThan(200)
    expect((await swept(long, { modes: ["twice"], maxRuns: 20_000 })).complete).toBe(true)
  })

  test("leaves the young alone when it is told to", async () => {
    // Handed over by a fork and taken by the child's first operations: one step for every scheduler there is.
    const handover = {
      setup: Effect.map(Probe.resource("item"), (item) =>
        Effect.uninterruptible(
          Effect.flatMap(
            Effect.andThen(
              item.acquire,
              Effect.forkChild(Effect.andThen(Effect.void, Effect.ensuring(Effect.yieldNow, item.release)), {
                startImmediately: true
              })
            ),
            Fiber.await
          )
        )
      )
    }
    expect(await kinds(handover, { modes: ["any"] })).toEqual(["NotReleased"])
    expect(await kinds(handover, { modes: ["any"], young: 3 })).toEqual([])
  })

  test("gives the same report every time", async () => {
    expect(await swept(leaky)).toEqual(await swept(leaky))
  })

  test("runs synchronously when the program does", () => {
    expect(Effect.runSync(sweep(leaky)).ok).toBe(false)
  })

  test("says the line at which the cancel hit", async () => {
    const report = await swept(leaky)
    const source = report.findings[0]?.position?.source ?? ""
    expect(source).toMatch(/^packages\/testing\/test\/sweep\.test\.ts:\d+:\d+$/)
  })

  test("says the span and the Effect.fn in which the cancel hit", async () => {
    const inner = Effect.fn("inner")(function* () {
      yield* Effect.yieldNow
    })
    const report = await swept(
      {
        setup: Effect.map(Probe.resource("socket"), (socket) =>
          Effect.gen(function* () {
            yield* socket.acquire
            yield* inner()
            yield* socket.release
          })
        )
      },
      once
    )
    const position = report.findings.find(({ position }) => position?.span === "inner")?.position
    expect(position?.calls[0]).toMatch(/^inner \(.*sweep\.test\.ts:\d+:\d+\)$/)
  })

  test("cancels in the way it is told", async () => {
    const cancelled: Array<string> = []
    await swept(Effect.yieldNow, {
      modes: ["root"],
      states: ["fresh"],
      cancel: (fiber) => {
        cancelled.push("cancelled")
        fiber.interruptUnsafe(42)
      }
    })
    expect(cancelled.length).toBeGreaterThan(0)
  })

  test("tells how far it is", async () => {
    const seen: Array<number> = []
    const report = await swept(Effect.andThen(Effect.yieldNow, Effect.void), {
      modes: ["root"],
      states: ["fresh"],
      onProgress: ({ step }) => seen.push(step)
    })
    expect(seen).toEqual(Array.from({ length: report.steps + 1 }, (_, index) => index + 1))
  })

  test("fails when the setup does", async () => {
    const exit = await Effect.runPromiseExit(sweep({ setup: Effect.fail("no database") }))
    expect(String(exit)).toContain("no database")
  })

  test("formats what it found with the step, the place and the way of cancelling", async () => {
    const text = formatSweep(await swept(leaky, once))
    expect(text).toMatch(/^leaky: \d+ runs over \d+ steps, \d+ findings$/m)
    expect(text).toMatch(/^ {2}NotReleased \(socket\): steps? [\d–, ]+ \(root cancelled, fresh state\)/m)
    expect(text).toMatch(/^ {7}packages\/testing\/test\/sweep\.test\.ts:\d+:\d+$/m)
  })

  test("is recorded again as a timeline, with the cancel between what was acquired and the end", async () => {
    const report = await swept(leaky)
    const [finding] = report.findings
    if (finding === undefined) throw new Error("nothing found")
    const { broken, events } = await Effect.runPromise(timeline(leaky, finding))
    const order = events
      .filter(({ kind }) => kind === "probe" || kind === "cancel" || kind === "end")
      .map(({ what }) => what)
    expect(order).toEqual(
      ["acquired socket", "cancels #1", "failure by interruption"].map((what) =>
        what.startsWith("failure") ? expect.stringContaining(what) : what
      )
    )
    expect(broken).toEqual(["1 socket acquired and not released"])
  })
})
