import type { CancelReason } from "@curfew/reason"
import { CancelReason as Reason } from "@curfew/reason"
import { CleanupBudget, stuck, type TaskScope } from "@curfew/scope"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { ShutdownReport, Stage, StageName } from "./messages.ts"
import { Process } from "./Process.ts"

/** What there is to shut down: a server in front, and the calls that run behind it. */
export interface Staged {
  /** The calls that run. */
  readonly calls: TaskScope.TaskScope
  /** Takes no new calls from now on. Does not wait. */
  readonly refuse: Effect.Effect<void>
  /** Ends every connection at once. */
  readonly force: Effect.Effect<void>
}

/** How long the two waiting stages may take. */
const limits = { drain: Duration.seconds(5), cancel: Duration.seconds(2) } as const

const stuckTasks = Effect.map(stuck, (records) => records.filter(({ kind }) => kind === "task").length)

const reason: CancelReason = Reason.Shutdown({ phase: "force" })

/** Why everything behind a server closes once it has shut down: in order, unless something had to be left behind. */
export const closingReason = ({ abandoned }: ShutdownReport): CancelReason =>
  abandoned === 0 ? Reason.Shutdown({ phase: "drain" }) : reason

/**
 * Shuts down in stages: take no new calls; wait for those that run; cancel what is left, with a reason; cut the
 * connections of what does not end even then. A second Ctrl-C ends the wait of the stage that runs.
 */
export const shutDown = (what: Staged): Effect.Effect<ShutdownReport, never, Process> =>
  Effect.gen(function* () {
    const { now, stop } = yield* Process
    const { calls } = what
    const stages: Array<Stage> = []
    const begun = yield* calls.size
    const stuckBefore = yield* stuckTasks

    const stage = <E>(
      name: StageName,
      work: Effect.Effect<unknown, E>,
      limit?: Duration.Duration
    ): Effect.Effect<void, E> =>
      Effect.gen(function* () {
        const began = now()
        // Cancelling waits for clean-up and is not interruptible itself, so what is raced is the wait for it.
        const working = yield* Effect.forkChild(work, { startImmediately: true })
        const waits: Array<Effect.Effect<Stage["outcome"], E>> = [
          Effect.as(Fiber.join(working), "done" as const)
        ]
        if (limit !== undefined) {
          waits.push(Effect.as(stop.next, "skipped by a second Ctrl-C" as const))
          waits.push(Effect.as(Effect.sleep(limit), "out of time" as const))
        }
        const outcome = yield* Effect.raceAllFirst(waits)
        stages.push({ name, took: now() - began, outcome })
      })

    yield* stage("stop accepting", what.refuse)
    yield* stage("drain", calls.drain(), limits.drain)
    const left = yield* calls.size
    if (left === 0) {
      stages.push({ name: "cancel", took: 0, outcome: "not needed" })
      stages.push({ name: "force", took: 0, outcome: "not needed" })
      return { drained: begun, cancelled: 0, abandoned: 0, stages }
    }
    // The budget is the stage's own: a call that does not end within it is left to the last stage.
    const cancel = Effect.provideService(calls.cancel(reason), CleanupBudget, limits.cancel)
    yield* stage("cancel", cancel, limits.cancel)
    // A task that overran its budget has left the task scope for the list of what is stuck.
    const abandoned = (yield* calls.size) + (yield* stuckTasks) - stuckBefore
    // Not after a cancel that was enough: the last answers may still be on their way out.
    if (abandoned === 0) stages.push({ name: "force", took: 0, outcome: "not needed" })
    else yield* stage("force", what.force)
    return { drained: begun - left, cancelled: left - abandoned, abandoned, stages }
  })
