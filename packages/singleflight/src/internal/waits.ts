/**
 * Which run waits for which, so that a wait that could never end is refused instead of begun.
 *
 * Invariants
 * 1. A fiber is inside a run when the run's cell stands above its own, whatever shields and masks lie between. What an
 *    owner answers for, background work for instance, is not inside: no run waits for it.
 * 2. A run waits for another from the operation in which a fiber inside it began to observe that one until the observer
 *    is answered or leaves. There is therefore never a circle: the `get` that would close one is refused.
 * 3. Outside of any run this costs one look at the context.
 */
import { type Cell, CurrentCell } from "@curfew/reason/CancelCell"
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"

/** A run as one that waits and is waited for. */
export interface Run {
  readonly name: string
  /** What it cannot end without. */
  readonly needs: Iterable<Run>
  /** A fiber inside it begins to wait for another run. */
  readonly awaits: (run: Run) => void
  readonly awaitsNoMore: (run: Run) => void
}

/** Set in the context of every run, and inherited by whatever comes from there. */
export const InRun: Context.Reference<boolean> = /* @__PURE__ */ Context.Reference(
  "@curfew/singleflight/InRun",
  { defaultValue: () => false }
)

export const enterRun = (cell: Cell, run: Run): void => {
  cell.stands = run
}

/** The runs that the fiber is inside, the innermost first. */
export const runsAround = (fiber: Fiber.Fiber<unknown, unknown>): ReadonlyArray<Run> => {
  if (!fiber.getRef(InRun)) return none
  const around: Array<Run> = []
  const seen = new Set<Cell>()
  const open = [fiber.getRef(CurrentCell)]
  for (let cell = open.pop(); cell !== undefined; cell = open.pop()) {
    if (seen.has(cell)) continue
    seen.add(cell)
    if (cell.kind === "shared" && cell.stands !== undefined) around.push(cell.stands as Run)
    if (cell.outer !== undefined) open.push(cell.outer)
    if (cell.parent !== undefined) open.push(cell.parent)
  }
  return around
}

const none: ReadonlyArray<Run> = []

/** The names along a way from one of `from` to one of `to`, each needing the next; `undefined` when there is none. */
export const wayTo = (from: Iterable<Run>, to: ReadonlyArray<Run>): ReadonlyArray<string> | undefined => {
  const cameFrom = new Map<Run, Run | undefined>()
  const open: Array<Run> = []
  for (const run of from) {
    cameFrom.set(run, undefined)
    open.push(run)
  }
  for (let run = open.pop(); run !== undefined; run = open.pop()) {
    if (to.includes(run)) {
      const names: Array<string> = []
      for (let step: Run | undefined = run; step !== undefined; step = cameFrom.get(step))
        names.unshift(step.name)
      return names
    }
    for (const next of run.needs) {
      if (cameFrom.has(next)) continue
      cameFrom.set(next, run)
      open.push(next)
    }
  }
  return undefined
}
