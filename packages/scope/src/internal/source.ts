/**
 * Where in the user's program a primitive was called, for the report about stuck work.
 *
 * Invariants
 * 1. Taking a position never throws and costs one short stack; the text is made only when somebody reads it.
 * 2. Where the engine cannot say, the position is `undefined`.
 * 3. Positions take no more than a few hundredths of a program's time: a stack takes as long as a primitive with all it
 *    does, so of those that are asked for in one millisecond only the first `most` are taken. A program that sets up that
 *    many so fast, over and over, has any clean-up that hangs among them; it is named either way.
 */
import { uptime } from "@curfew/reason/CancelCell"

// A stack takes one to two microseconds.
const most = 16
let moment = 0
let taken = 0

/** Whether there is time for one more. */
const hasTime = (): boolean => {
  const now = Math.trunc(uptime())
  if (now !== moment) {
    moment = now
    taken = 0
  }
  return taken++ < most
}

interface StackCapture {
  stackTraceLimit?: number
  readonly captureStackTrace?: (holder: object, skip: unknown) => void
}

const unknown = (): undefined => undefined

/** Takes the caller's position; `skip` is the function whose callers are of interest. */
export const takePosition = (skip: (...args: never) => unknown): (() => string | undefined) => {
  const engine = Error as StackCapture
  if (engine.captureStackTrace === undefined || !hasTime()) return unknown
  const limit = engine.stackTraceLimit
  const holder: { readonly stack?: unknown } = {}
  try {
    engine.stackTraceLimit = 1
    engine.captureStackTrace(holder, skip)
  } catch {
    // `Error` may be frozen.
    return unknown
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
