/**
 * The end of a turn of the event loop. Most requests begin and end within one, and only those that outlive it need to be
 * watched, shown and limited; what they all need in any case costs less together than one by one.
 *
 * Invariants
 * 1. What is put here is looked at once: after the turn, or earlier by who counts what is under way.
 * 2. What one throws keeps no other from its look.
 */
import * as Scheduler from "effect/Scheduler"

export interface Turned {
  /** The turn is over, or is to be taken for it. */
  readonly turned: () => void
}

let fresh: Array<Turned> = []
let dispatcher: Scheduler.SchedulerDispatcher | undefined

/** Looks at what has been put here. */
export const endTurn = (): void => {
  const due = fresh
  if (due.length === 0) return
  fresh = []
  let thrown: { readonly error: unknown } | undefined
  for (const each of due) {
    try {
      each.turned()
    } catch (error) {
      thrown ??= { error }
    }
  }
  if (thrown !== undefined) throw thrown.error
}

export const afterTurn = (each: Turned): void => {
  if (fresh.push(each) > 1) return
  dispatcher ??= new Scheduler.MixedScheduler().makeDispatcher()
  dispatcher.scheduleTask(endTurn, 0)
}
