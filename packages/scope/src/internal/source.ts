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
  const holder: { readonly stack?: unknown } = {}
  try {
    engine.stackTraceLimit = 1
    engine.captureStackTrace(holder, skip)
  } catch {
    // `Error` may be frozen.
    return () => undefined
  } finally {
    restore(engine, limit)
  }
  return () => readLine(holder)
}

const restore = (engine: StackCapture, limit: number | undefined): void => {
  try {
    if (limit === undefined) delete engine.stackTraceLimit
    else engine.stackTraceLimit = limit
  } catch {
    // Frozen: then it was not changed either.
  }
}

const readLine = (holder: { readonly stack?: unknown }): string | undefined => {
  try {
    // A program's own `prepareStackTrace` runs here, and may give anything.
    const { stack } = holder
    return typeof stack === "string" ? stack.split("\n")[1]?.trim().replace(/^at /, "") : undefined
  } catch {
    return undefined
  }
}
