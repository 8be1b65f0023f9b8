/**
 * Where in the user's program a primitive was called, for the report about stuck work.
 *
 * Invariants
 * 1. Taking a position never throws and costs one short stack; the text is made only when somebody reads it.
 * 2. Where the engine cannot say, the position is `undefined`.
 */

interface StackCapture {
  stackTraceLimit?: number
  readonly captureStackTrace?: (holder: object, skip: unknown) => void
}

/** Takes the caller's position; `skip` is the function whose callers are of interest. */
export const takePosition = (skip: (...args: never) => unknown): (() => string | undefined) => {
  const engine = Error as StackCapture
  if (engine.captureStackTrace === undefined) return () => undefined
  const limit = engine.stackTraceLimit
  engine.stackTraceLimit = 1
  const holder: { readonly stack?: string } = {}
  engine.captureStackTrace(holder, skip)
  if (limit !== undefined) engine.stackTraceLimit = limit
  return () => holder.stack?.split("\n")[1]?.trim().replace(/^at /, "")
}
