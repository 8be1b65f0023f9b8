/**
 * Running a program, and the stages of its shutdown around it.
 *
 * Invariants
 * 1. The stages run masked, in the fiber that called `run`; only the wait for the trigger can be interrupted, and that
 *    is a trigger.
 * 2. What has not ended in the end stands in the stuck registry: tasks by the end of their scopes with no budget, the
 *    program by itself.
 * 3. The report is made once, after everything else, and given to `onReport` before the fiber can end interrupted.
 */
import { CancelReason, currentReason, fromCause, tellCancels } from "@curfew/reason"
import { CancelCell } from "@curfew/reason/CancelCell"
import { CleanupBudget, Owner, reportUnhandled, stuck } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import { enterUnsafe } from "@curfew/scope/Stuck"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Report, Trigger } from "../Report.ts"
import type { Ended, ShutdownOptions } from "../Shutdown.ts"
import { shrinking } from "./budget.ts"
import { CurrentShutdown } from "./registry.ts"
import { Stages } from "./stages.ts"

export const runStaged = <A, E, R>(
  main: Effect.Effect<A, E, R>,
  options: ShutdownOptions
): Effect.Effect<Ended<A, E>, never, Exclude<R, Owner>> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber((waiter) => {
      const stages = new Stages(waiter, options)
      const unsubscribe = subscribe(stages)
      const scope = Scope.makeUnsafe()
      return Effect.gen(function* () {
        const known = new Set((yield* stuck).map((record) => record.id))
        stages.owner = yield* Scope.provide(
          TaskScope.makeIn(() => stages.ownerCell, { name: stages.name, onTask: stages.onTask }),
          scope
        )
        stages.hooks = yield* Scope.provide(
          TaskScope.makeIn(() => stages.hooksCell, { name: "shutdown" }),
          scope
        )
        const running = startMain(stages, main)
        yield* awaitBegin(stages, restore(stages.awaitTrigger))
        const began = stages.now
        const startedAt = stages.clock.currentTimeMillisUnsafe()
        stages.ledger.enter("main", stages.name, running, stages.mainCell)
        yield* stages.forced(yield* stages.drained)
        stages.registry.stage = "ended"
        yield* calling("the removal of the signals", () => unsubscribe?.())
        const exit = running.pollUnsafe()
        if (exit === undefined) abandon(stages, running, startedAt)
        yield* Effect.provideService(Scope.close(scope, Exit.void), CleanupBudget, Duration.zero)
        stages.whole.unlink()
        const left = (yield* stuck).filter((record) => !known.has(record.id))
        const report: Report = {
          trigger: stages.trigger as Trigger,
          startedAt,
          took: Duration.millis(stages.now - began),
          phases: stages.phases,
          items: stages.ledger.items(left, stages.clock.currentTimeMillisUnsafe(), stages.name)
        }
        yield* calling("onReport", () => options.onReport?.(report))
        return { exit: Option.fromUndefinedOr(exit), report }
      })
    })
  )

/** Listens to the signals before anything else stands: where that throws there is nothing to end. */
const subscribe = (stages: Stages): (() => unknown) | undefined => {
  try {
    return stages.options.signals?.subscribe((signal) => stages.signal(signal))
  } catch (error) {
    stages.dismiss()
    throw error
  }
}

/** A callback of the program's that throws is told, and changes nothing. */
const calling = (name: string, callback: () => unknown): Effect.Effect<void> =>
  Effect.catchCause(Effect.asVoid(Effect.sync(callback)), (cause) => reportUnhandled("cleanup", name, cause))

const startMain = <A, E, R>(stages: Stages, main: Effect.Effect<A, E, R>): Fiber.Fiber<A, E> => {
  const { context } = stages.waiter
  tellCancels()
  const surrounding = stages.waiter.getRef(CleanupBudget)
  const cell = new CancelCell("task", { name: stages.name, parent: stages.whole })
  const running = Child.forkUnsafe(
    context.pipe(
      Context.add(Owner, stages.owner),
      Context.add(CurrentShutdown, stages.registry),
      Context.add(
        CleanupBudget,
        shrinking(surrounding, () => stages.budgetLeft)
      )
    ) as Context.Context<R>,
    cell,
    main
  )
  stages.mainCell = cell
  running.addObserver(() => stages.begin({ _tag: "MainEnded" }))
  return running
}

/** Waits for the trigger; a cancel of the waiter is one. */
const awaitBegin = (stages: Stages, awaitTrigger: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.matchCauseEffect(awaitTrigger, {
    onSuccess: () => Effect.void,
    onFailure: (cause) =>
      Effect.map(currentReason, (current) => {
        const reason = Option.getOrElse(
          Option.orElse(fromCause(cause), () => current),
          CancelReason.Unknown
        )
        stages.begin({ _tag: "Cancelled", reason })
      })
  })

/** The program has not ended in time: it stands in the stuck registry until it does. */
const abandon = (stages: Stages, running: Fiber.Fiber<unknown, unknown>, startedAt: number): void => {
  stages.mainCell.abandon()
  running.addObserver(
    enterUnsafe(
      {
        kind: "task",
        name: stages.name,
        reason: stages.mainCell.reason,
        span: running.cache.span?._tag === "Span" ? running.cache.span.name : undefined,
        startedAt,
        source: undefined
      },
      running.context
    )
  )
}
