/**
 * The end of a turn of the event loop. Most requests begin and end within one, and only those that outlive it need to be
 * watched, shown and limited; what they all need in any case costs less together than one by one.
 *
 * Invariants
 * 1. What is put here is looked at once: after the turn, or earlier by who counts what is under way.
 * 2. What one throws keeps no other from its look.
 * 3. What the looks have gathered comes after the last of them, in the same turn.
 */
import * as Scheduler from "effect/Scheduler"

export interface Turned {
  /** The turn is over, or is to be taken for it. */
  readonly turned: () => void
}

let fresh: Array<Turned> = []
let dispatcher: Scheduler.SchedulerDispatcher | undefined

let gathered: Array<Turned> = []
let looking = 0

/** Looks at what has been put here. */
export const endTurn = (): void => {
  const due = fresh
  if (due.length === 0) return
  fresh = []
  looking++
  let thrown = lookAt(due, undefined)
  looking--
  if (looking === 0 && gathered.length > 0) {
    const last = gathered
    gathered = []
    thrown = lookAt(last, thrown)
  }
  if (thrown !== undefined) throw thrown.error
}

interface Thrown {
  readonly error: unknown
}

/** Gives the first that was thrown. */
const lookAt = (due: ReadonlyArray<Turned>, before: Thrown | undefined): Thrown | undefined => {
  let thrown = before
  for (const each of due) {
    try {
      each.turned()
    } catch (error) {
      thrown ??= { error }
    }
  }
  return thrown
}

/** For what many looks of one turn have in common. */
export const afterLooks = (each: Turned): void => {
  if (looking > 0) gathered.push(each)
  else afterTurn(each)
}

export const afterTurn = (each: Turned): void => {
  if (fresh.push(each) > 1) return
  dispatcher ??= new Scheduler.MixedScheduler().makeDispatcher()
  dispatcher.scheduleTask(endTurn, 0)
}
