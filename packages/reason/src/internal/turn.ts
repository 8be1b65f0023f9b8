/**
 * Cancels inside cancels: a listener may cancel another cell, and so on.
 *
 * Invariants
 * 1. Depth costs no stack: beyond `maxNested` a cancel is told by the one it stands in, still within the same turn.
 * 2. Each is told once, in the order in which they came.
 * 3. What is thrown keeps no other from being told; it comes out at the end, several as an `AggregateError`.
 */

/** Makes a call whose error is kept for the end of the turn. */
export type Attempt = <A, B>(call: (a: A, b: B) => void, a: A, b: B) => void

type Tell = (attempt: Attempt) => void

// One cancel inside another takes a few dozen frames of the engine's stack.
const maxNested = 64
let nested = 0
const waiting: Array<Tell> = []

/** Tells a cancel, or leaves that to the cancel it stands in when the stack is deep: still the same turn. */
export const takeTurn = (tell: Tell): void => {
  if (nested >= maxNested) {
    waiting.push(tell)
    return
  }
  nested++
  let thrown: Array<unknown> | undefined
  const attempt: Attempt = (call, a, b) => {
    try {
      call(a, b)
    } catch (error) {
      if (thrown === undefined) thrown = [error]
      else thrown.push(error)
    }
  }
  tell(attempt)
  // At the deepest level the stack is as deep for each that was put off as it was for the first.
  if (nested === maxNested)
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) next(attempt)
  nested--
  if (thrown === undefined) return
  throw thrown.length === 1
    ? thrown[0]
    : new AggregateError(thrown, "Several listeners of one cancel have thrown.")
}
