/** L8, L24, L27: every primitive, cancelled at every step, leaves nothing behind. */
import { getEventListeners } from "node:events"
import { CancelReason } from "@curfew/reason"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import { describe, expect, test } from "vitest"
import { type SweepOptions, type Swept, sweep, sweepAll } from "../../../test/support/sweep.ts"
import {
  background,
  bounded,
  CancelScope,
  failAfter,
  Instant,
  moveOnAfter,
  OnUnhandled,
  Owner,
  ownerClosedTotal,
  stuck,
  TaskScope
} from "../src/index.ts"

type Tasks = TaskScope.TaskScope<never>

const steps = Effect.andThen(Effect.yieldNow, Effect.as(Effect.yieldNow, "used"))

/** Counts what is open, and gives work that opens, uses and closes. */
const world = () => {
  const counts = { open: 0, opened: 0 }
  const permits = Semaphore.makeUnsafe(2)
  const work = permits.withPermit(
    Effect.acquireUseRelease(
      Effect.sync(() => {
        counts.open++
        counts.opened++
      }),
      () => steps,
      () =>
        Effect.andThen(
          Effect.yieldNow,
          Effect.sync(() => {
            counts.open--
          })
        )
    )
  )
  const closed = (exit: Exit.Exit<unknown, unknown>) => {
    expect(counts.open, "left open").toBe(0)
    if (Exit.isFailure(exit)) expect(Cause.hasInterruptsOnly(exit.cause), String(exit.cause)).toBe(true)
    expect(Effect.runSync(stuck)).toEqual([])
  }
  return { closed, counts, work }
}
type World = ReturnType<typeof world>

const quiet = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, OnUnhandled, () => Effect.void)

const programs: Record<string, (world: World) => Effect.Effect<unknown, unknown>> = {
  "CancelScope.run": ({ work }) => CancelScope.run(() => CancelScope.run(() => work)),
  "CancelScope.run that cancels itself": ({ work }) =>
    CancelScope.run((scope) => Effect.andThen(work, Effect.andThen(scope.cancel(), Effect.never))),
  "CancelScope.run with a concurrent all": ({ work }) =>
    CancelScope.run(() => Effect.all([work, CancelScope.run(() => work)], { concurrency: 2 })),
  "CancelScope.run in a mask": ({ work }) => Effect.uninterruptible(CancelScope.run(() => work)),
  "forked inside a mask: a scope in a time-out": ({ work }) =>
    Effect.uninterruptible(
      Effect.timeoutOption(
        CancelScope.run(() => work),
        "1 hour"
      )
    ),
  "forked inside a mask: sides of a race with scopes and limits": ({ work }) =>
    Effect.uninterruptible(
      Effect.raceFirst(
        CancelScope.run(() => work),
        failAfter("1 hour")(work)
      )
    ),
  "forked inside a mask: tasks of a concurrent all": ({ work }) =>
    Effect.uninterruptible(
      Effect.all(
        [
          TaskScope.use((tasks: Tasks) => Effect.flatMap(tasks.spawn(work), (task) => task.join)),
          CancelScope.run(() => work)
        ],
        { concurrency: 2 }
      )
    ),
  "forked inside a mask: a limit in a time-out in a finalizer": ({ work }) =>
    Effect.onExit(work, () =>
      Effect.asVoid(Effect.ignore(Effect.timeout(failAfter(work, "1 hour"), "1 hour")))
    ),
  "forked inside a mask: a scope that waits for its own end": ({ work }) =>
    CancelScope.run((outer) =>
      Effect.uninterruptible(CancelScope.run(() => Effect.andThen(work, outer.cancelAndWait())))
    ),
  "outlives its scope: a task scope made in a time limit": ({ work }) =>
    Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* failAfter(TaskScope.make(), "1 hour")
        yield* tasks.spawn(Effect.andThen(work, Effect.never))
        const task = yield* tasks.spawn(work)
        return yield* task.join
      })
    ),
  "outlives its scope: tasks made in a cancelled scope": ({ work }) =>
    Effect.scoped(
      Effect.gen(function* () {
        const made = yield* Deferred.make<TaskScope.TaskScope>()
        yield* CancelScope.run((scope) =>
          Effect.gen(function* () {
            const tasks = yield* TaskScope.make()
            yield* tasks.spawn(work)
            yield* Deferred.succeed(made, tasks)
            yield* scope.cancel()
            yield* Effect.never
          })
        )
        const tasks = yield* Deferred.await(made)
        yield* Effect.ignore(tasks.spawn(work))
        return yield* tasks.size
      })
    ),
  "outlives its scope: a signal's scope made in a limit": ({ work }) =>
    Effect.scoped(
      Effect.gen(function* () {
        const scope = yield* failAfter(CancelScope.fromSignal(new AbortController().signal), "1 hour")
        yield* work
        yield* scope.cancel()
        return scope.signal.aborted
      })
    ),
  "outlives its scope: background work of a task": ({ work }) =>
    Effect.provide(
      TaskScope.use((tasks: Tasks) =>
        Effect.gen(function* () {
          const task = yield* tasks.spawn(background("index", work))
          return yield* (yield* task.join).join
        })
      ),
      Owner.layer()
    ),
  "CancelScope.run with cancelAndWait from a task": ({ work }) =>
    CancelScope.run((outer) =>
      TaskScope.use((tasks: Tasks) =>
        Effect.andThen(
          tasks.spawn(CancelScope.run(() => work)),
          Effect.andThen(outer.cancelAndWait(), Effect.never)
        )
      )
    ),
  "failAfter in time": ({ work }) => failAfter("1 hour")(work),
  "failAfter too late": ({ work }) => Effect.option(failAfter("1 hour")(Effect.andThen(work, Effect.never))),
  "moveOnAfter too late": ({ work }) => moveOnAfter("1 hour")(Effect.ensuring(Effect.never, work)),
  "TaskScope.use with spawn and daemon": ({ work }) =>
    TaskScope.use((tasks: Tasks) =>
      Effect.gen(function* () {
        yield* tasks.daemon(Effect.andThen(work, Effect.never))
        const one = yield* tasks.spawn(work)
        yield* tasks.spawn(work)
        return yield* one.join
      })
    ),
  "TaskScope.use that supervises a failure": ({ work }) =>
    quiet(
      TaskScope.use(
        (tasks: TaskScope.TaskScope) =>
          Effect.andThen(
            tasks.spawn(Effect.andThen(work, Effect.fail("no"))),
            Effect.andThen(tasks.spawn(work), steps)
          ),
        { policy: "supervise" }
      )
    ),
  "TaskScope.use that fails fast": ({ work }) =>
    quiet(
      Effect.catch(
        TaskScope.use((tasks: TaskScope.TaskScope<string>) =>
          Effect.andThen(
            tasks.spawn(Effect.andThen(work, Effect.never)),
            tasks.spawn(Effect.andThen(steps, Effect.fail("no")))
          )
        ),
        () => Effect.succeed("failed")
      )
    ),
  "TaskScope.make with drain": ({ work }) =>
    Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make()
        yield* tasks.spawn(work)
        yield* tasks.spawn(work)
        yield* tasks.close
        return yield* tasks.drain("1 hour")
      })
    ),
  "TaskScope.make with cancel": ({ work }) =>
    Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make()
        yield* tasks.spawn(Effect.andThen(work, Effect.never))
        yield* tasks.cancel()
        return yield* tasks.size
      })
    ),
  bounded: ({ work }) => Effect.onExit(work, () => Effect.asVoid(bounded(work))),
  "Owner.layer with background": ({ work }) =>
    Effect.provide(
      Effect.flatMap(background("index", work), (task) => task.join),
      Owner.layer()
    ),
  "Owner.process with background": ({ work }) =>
    Effect.provide(Effect.as(background("index", work), "handed over"), Owner.process),
  "background of a closed owner": ({ work }) =>
    Effect.provide(
      Effect.gen(function* () {
        yield* (yield* Owner).close
        const task = yield* background("index", work)
        return yield* task.status
      }),
      Owner.layer()
    )
}

const swept = (make: (world: World) => Effect.Effect<unknown, unknown>) => (): Swept<unknown, unknown> => {
  const made = world()
  return { program: make(made), after: made.closed }
}

describe("L8, L24: cancelled at every step, nothing is left and the next run gives the right answer", () => {
  for (const [name, make] of Object.entries(programs))
    test(`L8: ${name}`, async () => {
      const counts = await sweepAll(swept(make))
      expect(Math.min(...counts)).toBeGreaterThan(10)
    })

  test("L8: fromSignal and run with a signal leave no listener", async () => {
    const { signal } = new AbortController()
    await sweepAll(() => ({
      program: Effect.scoped(
        Effect.andThen(
          CancelScope.fromSignal(signal),
          CancelScope.run(() => steps, { signal })
        )
      ),
      after: () => expect(getEventListeners(signal, "abort")).toHaveLength(0)
    }))
  })

  test("L42: a late result is received exactly once, whenever the caller is cancelled", async () => {
    const options: ReadonlyArray<SweepOptions> = [
      {},
      { twice: true },
      { cancel: "scope" },
      { cancel: "scope", twice: true }
    ]
    for (const option of options)
      await sweep(() => {
        let produced = 0
        let received = 0
        const late = Effect.uninterruptible(
          Effect.andThen(
            Effect.sleep("1 hour"),
            Effect.sync(() => ++produced)
          )
        )
        return {
          program: moveOnAfter("1 second", {
            onLate: (exit) =>
              Effect.sync(() => {
                if (Exit.isSuccess(exit)) received++
              })
          })(late),
          answer: Option.none(),
          after: (exit, { cancelled }) => {
            expect(received).toBeLessThanOrEqual(produced)
            // Cancelled before its deadline it is like any masked work: the caller asked for nothing late.
            if (!cancelled || Exit.isSuccess(exit)) expect(received).toBe(produced)
            produced = received = 0
          }
        }
      }, option)
  })

  test("L28: at no step does a scope wait for its budget when its tasks have ended", async () => {
    const kinds: Record<string, Effect.Effect<unknown, unknown>> = {
      make: Effect.scoped(
        Effect.flatMap(TaskScope.make(), (tasks) => Effect.andThen(tasks.spawn(steps), tasks.cancel()))
      ),
      use: TaskScope.use((tasks: TaskScope.TaskScope) => Effect.andThen(tasks.daemon(Effect.never), steps)),
      bounded: bounded(steps)
    }
    for (const program of Object.values(kinds)) {
      let elapsed = 0
      const timed = Effect.flatMap(Instant.now, (start) =>
        Effect.ensuring(
          program,
          Effect.map(Instant.now, (end) => {
            elapsed = end - start
          })
        )
      )
      await sweepAll(() => ({ program: Effect.as(timed, "done"), after: () => expect(elapsed).toBe(0) }))
    }
  })

  test("L25: whenever the caller is cancelled, a sibling that failed in its clean-up is told once", async () => {
    for (const cancel of ["native", "scope"] as const)
      for (const twice of [false, true]) {
        let met = 0
        await sweep(
          () => {
            let happened = 0
            let told = 0
            const breaking = Effect.onInterrupt(Effect.never, () =>
              Effect.suspend(() => {
                happened++
                met++
                return Effect.die("second")
              })
            )
            return {
              program: Effect.flip(
                TaskScope.use(
                  (tasks: TaskScope.TaskScope) =>
                    Effect.gen(function* () {
                      yield* tasks.spawn(breaking)
                      yield* tasks.spawn(Effect.andThen(Effect.yieldNow, Effect.fail("first")))
                    }),
                  {
                    onUnhandled: ({ cause }) =>
                      Effect.sync(() => {
                        if (Cause.squash(cause) === "second") told++
                      })
                  }
                )
              ),
              answer: "first",
              after: () => {
                expect(told).toBe(happened)
                happened = told = 0
              }
            }
          },
          { cancel, twice }
        )
        expect(met).toBeGreaterThan(10)
      }
  })

  test("L27: what spawn accepted ran its body or its onNeverStarted, exactly one of them", async () => {
    for (const cancel of ["native", "scope", "any"] as const)
      for (const twice of [false, true]) {
        const kinds = new Set<string>()
        await sweep(
          () => {
            const accepted: Array<{ ran: number; never: number }> = []
            return {
              program: quiet(
                TaskScope.use(
                  (tasks: TaskScope.TaskScope) =>
                    Effect.gen(function* () {
                      for (let i = 0; i < 4; i++) {
                        const task = { ran: 0, never: 0 }
                        yield* tasks.spawn(
                          Effect.suspend(() => {
                            task.ran++
                            return steps
                          }),
                          {
                            onNeverStarted: Effect.sync(() => {
                              task.never++
                            })
                          }
                        )
                        accepted.push(task)
                      }
                      return "value"
                    }),
                  { policy: "supervise" }
                )
              ),
              after: () => {
                for (const { never, ran } of accepted) {
                  kinds.add(ran > 0 ? "ran" : "never started")
                  expect(ran + never).toBe(1)
                }
                accepted.length = 0
              }
            }
          },
          { cancel, twice }
        )
        expect(kinds).toContain("ran")
      }
  })

  test("L46: work that a closed owner refused runs, or was never counted", async () => {
    for (const cancel of ["native", "scope"] as const)
      await sweep(
        () => {
          let ran = 0
          let registry: typeof Metric.MetricRegistry.Service = new Map()
          return {
            program: Effect.suspend(() => {
              ran = 0
              registry = new Map()
              const counting = Effect.gen(function* () {
                yield* (yield* Owner).close
                const begun = Effect.sync(() => {
                  ran++
                })
                yield* background("index", begun)
                return "attached"
              })
              return Effect.provideService(
                Effect.provide(counting, Owner.layer()),
                Metric.MetricRegistry,
                registry
              )
            }),
            answer: "attached",
            after: () =>
              Effect.map(
                Effect.provideService(Metric.value(ownerClosedTotal), Metric.MetricRegistry, registry),
                ({ count }) => expect(ran).toBe(count)
              )
          }
        },
        { cancel }
      )
  })

  test("L3: whatever the step, the exit is the value, the own Cancelled, or a pure interrupt", async () => {
    const seen = new Set<string>()
    for (const twice of [false, true])
      await sweep(
        () => ({
          program: CancelScope.run((scope) =>
            Effect.andThen(steps, Effect.andThen(scope.cancel(CancelReason.Superseded()), Effect.never))
          ),
          answer: { _tag: "Cancelled", reason: CancelReason.Superseded() } as never,
          after: (exit) => {
            seen.add(Exit.isSuccess(exit) ? exit.value._tag : "interrupt")
            if (Exit.isFailure(exit)) expect(Cause.hasInterruptsOnly(exit.cause)).toBe(true)
          }
        }),
        { twice }
      )
    expect([...seen].sort()).toEqual(["Cancelled", "interrupt"])
  })
})
