/**
 * Cancels inside cancels: a listener may cancel another cell, and so on.
 *
 * Invariants
 * 1. Depth costs no stack: beyond `maxNested` a cancel is told by the one it stands in, still within the same turn.
 * 2. Each is told once, in the order in which they came.
 * 3. What is thrown keeps no other from being told; it comes out at the end, several as an `AggregateError`.
 */

// One cancel inside another takes a few dozen frames of the engine's stack.
const maxNested = 64
let nested = 0
const waiting: Array<() => void> = []

/** Tells a cancel, or leaves that to the cancel it stands in when the stack is deep: still the same turn. */
export const inTurn = (tell: () => void): void => {
  if (nested >= maxNested) {
    waiting.push(tell)
    return
  }
  nested++
  const thrown: Array<unknown> = []
  // At the deepest level the stack is as deep for each that was put off as it was for the first.
  for (let next: (() => void) | undefined = tell; next !== undefined; ) {
    try {
      next()
    } catch (error) {
      thrown.push(error)
    }
    next = nested === maxNested ? waiting.shift() : undefined
  }
  nested--
  rethrow(thrown)
}

export const rethrow = (thrown: ReadonlyArray<unknown>): void => {
  if (thrown.length === 1) throw thrown[0]
  if (thrown.length > 1) throw new AggregateError(thrown, "Several listeners of one cancel have thrown.")
}
