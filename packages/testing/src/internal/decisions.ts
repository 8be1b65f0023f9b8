/**
 * The decisions that make a schedule.
 *
 * Invariants
 * 1. A schedule is a list of numbers: for each decision in turn, which of its alternatives was taken. 0 is what would
 *    have happened by itself, and so are the decisions after the end of the list.
 * 2. There is a decision wherever there is a choice, and nowhere else: which of several runnable tasks is next, and,
 *    with preemption, whether a fiber yields before an operation while anything else could run.
 * 3. A fiber that was made to yield takes that operation when it is its turn again: it is not asked twice for one.
 * 4. The same program with the same list takes the same decisions.
 */
import type { AnyFiber } from "./fibers.ts"
import type { World } from "./world.ts"

/** Takes one decision among some alternatives. `preempts` when any other than the first is a forced yield. */
export type Decide = (alternatives: number, preempts: boolean) => number

export interface Taken {
  /** What was taken, decision by decision. */
  readonly taken: ReadonlyArray<number>
  /** How many alternatives each decision had. */
  readonly alternatives: ReadonlyArray<number>
  readonly preempts: ReadonlyArray<boolean>
}

interface Log {
  readonly taken: Array<number>
  readonly alternatives: Array<number>
  readonly preempts: Array<boolean>
}

// After a forced yield the run loop asks again before the operation that was put off.
const askedAgain = 1

/** Lets the world take its decisions here, from now on. */
export const scheduleWith = (world: World, decide: Decide, preemption: boolean): Taken => {
  const log: Log = { taken: [], alternatives: [], preempts: [] }
  const choose = (alternatives: number, preempts: boolean): number => {
    const chosen = Math.min(decide(alternatives, preempts), alternatives - 1)
    log.taken.push(chosen)
    log.alternatives.push(alternatives)
    log.preempts.push(preempts)
    return chosen
  }
  world.choose = (runnable) => (world.phase === "run" ? choose(runnable, false) : 0)
  if (preemption) {
    const skip = new WeakMap<AnyFiber, number>()
    world.onStep = (fiber) => {
      const left = skip.get(fiber) ?? 0
      if (left > 0) {
        skip.set(fiber, left - 1)
        return false
      }
      if (world.isAlone(fiber) || choose(2, true) === 0) return false
      skip.set(fiber, askedAgain)
      return true
    }
  }
  return log
}

/** Takes what a list says, and after its end what happens by itself. */
export const following = (schedule: ReadonlyArray<number>): Decide => {
  let next = 0
  return () => schedule[next++] ?? 0
}

/** A generator of numbers in [0, 1) that is the same for the same seed. */
const generator = (seed: number): (() => number) => {
  let state = (seed ^ 0x9e3779b9) >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** Decides by a seed: any of the runnable tasks alike, and a forced yield with the given probability. */
export const seeded = (seed: number, probability: number): Decide => {
  const random = generator(seed)
  return (alternatives, preempts) =>
    preempts ? (random() < probability ? 1 : 0) : Math.floor(random() * alternatives)
}

/** The schedule without the decisions at its end that would have been taken anyway. */
export const trimmed = (schedule: ReadonlyArray<number>): ReadonlyArray<number> => {
  let end = schedule.length
  while (end > 0 && schedule[end - 1] === 0) end--
  return schedule.slice(0, end)
}

/**
 * The next schedule in the order of a depth-first search: the last decision that has another alternative takes it, and
 * what follows starts again. `undefined` when all have been tried. At most `most` forced yields stand in one schedule.
 */
export const successor = (
  { alternatives, preempts, taken }: Taken,
  most: number
): ReadonlyArray<number> | undefined => {
  for (let index = taken.length - 1; index >= 0; index--) {
    const next = (taken[index] as number) + 1
    if (next >= (alternatives[index] as number)) continue
    if (preempts[index] === true) {
      const forced = taken.slice(0, index).filter((chosen, i) => preempts[i] === true && chosen > 0).length
      if (forced >= most) continue
    }
    return [...taken.slice(0, index), next]
  }
  return undefined
}
