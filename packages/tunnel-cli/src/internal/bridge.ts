/**
 * Where the program meets turns of the event loop.
 *
 * **Invariants**
 * 1. What was taken back does not run any more.
 */

/** Runs it once the event loop has gone round that often. Returns the removal. */
export const afterTurns = (count: number, run: () => void): (() => void) => {
  let left = count
  let immediate: NodeJS.Immediate
  const next = (): void => {
    immediate = setImmediate(() => {
      left--
      if (left > 0) next()
      else run()
    })
  }
  next()
  return () => clearImmediate(immediate)
}
