/**
 * Where a fiber stands: what is known cheaply at the moment, and what is found out about it later.
 *
 * Invariants
 * 1. `capture` copies references and computes nothing: it is called in every run.
 * 2. A position is resolved from a capture at any later time. A generator that has gone on meanwhile is shown where it
 *    is then; one that was cancelled at the capture has not.
 * 3. Frames in the core of Effect and in this package are left out; those of Effect's other modules stand in only
 *    where there is nothing else.
 * 4. Nothing here depends on Effect's internals for its correctness: an unknown shape gives a coarser position.
 */
import type * as References from "effect/References"
import type { Position } from "../Finding.ts"
import type { AnyFiber, FiberRecord } from "./fibers.ts"
import type { Locate, Place } from "./locate.ts"

export interface Capture {
  readonly record: FiberRecord
  readonly step: number
  readonly masked: boolean
  readonly span: string | undefined
  readonly frame: References.StackFrame | undefined
  readonly stack: ReadonlyArray<unknown>
  /** The operation that was about to be evaluated, as soon as it is known. */
  operation: unknown
}

interface Inside {
  readonly _stack?: ReadonlyArray<unknown>
  readonly interruptible?: boolean
}

const successCont = "~effect/Effect/successCont"
const identifier = "~effect/Effect/identifier"
const deepest = 40

/** Tells whether the fiber is in an uninterruptible region. */
export const isMasked = (fiber: AnyFiber): boolean => (fiber as Inside).interruptible === false

/** What is known of a fiber at this moment. */
export const capture = (fiber: AnyFiber, record: FiberRecord, step: number): Capture => {
  const { span } = fiber.cache
  return {
    record,
    step,
    masked: isMasked(fiber),
    span: span?._tag === "Span" ? span.name : undefined,
    frame: fiber.cache.stackFrame,
    stack: ((fiber as Inside)._stack ?? []).slice(-deepest),
    operation: undefined
  }
}

/** The operation behind a yield that the scheduler asked for: what `flatMap(yieldNow, () => operation)` goes on with. */
export const behindYield = (primitive: unknown): unknown => {
  try {
    const { payload, [successCont]: next } = primitive as Record<string, unknown>
    if (typeof payload === "function") return payload()
    return typeof next === "function" ? next.call(primitive) : undefined
  } catch {
    return undefined
  }
}

/** The name of an operation, in Effect's own words. */
const operationName = (primitive: unknown): string => {
  const name = (primitive as Record<string, unknown> | undefined)?.[identifier]
  return typeof name === "string" ? name : "unknown"
}

const isHidden = ({ file }: Place): boolean =>
  /(^|\/)node_modules\/effect\/(src|dist)\/internal\/(effect|core|layer)\./.test(file) ||
  /(^|\/)(packages\/testing|@curfew\/testing)\/(src|dist)\//.test(file) ||
  file.startsWith("node:")

const isEffect = (place: string): boolean => /(^|\/)node_modules\/effect\//.test(place)

/** The functions and generators that one operation carries. */
const codeOf = (primitive: unknown): ReadonlyArray<unknown> => {
  if (typeof primitive !== "object" || primitive === null) return []
  return Object.values(primitive).filter(
    (value) => typeof value === "function" || (typeof value?.next === "function" && typeof value === "object")
  )
}

const placesOf = (primitive: unknown, locate: Locate): ReadonlyArray<string> =>
  codeOf(primitive).flatMap((code) => {
    const place = locate(code)
    return place === undefined || isHidden(place) ? [] : [`${place.file}:${place.line}:${place.column}`]
  })

const snippetOf = (primitive: unknown, locate: Locate): string | undefined => {
  for (const code of codeOf(primitive)) {
    if (typeof code !== "function") continue
    const place = locate(code)
    if (place === undefined || isHidden(place) || /(^|\/)node_modules\/effect\//.test(place.file)) continue
    const text = String(code).replaceAll(/\s+/g, " ")
    return text.length > 72 ? `${text.slice(0, 71)}…` : text
  }
  return undefined
}

const short = ({ index, phase }: FiberRecord): string =>
  phase === "run" ? `#${index}` : `#${index} of the ${phase === "after" ? "run afterwards" : phase}`

/** The name by which a report calls a fiber. */
export const fiberName = (record: FiberRecord): string =>
  record.parent === undefined ? short(record) : `${short(record)} (forked by ${short(record.parent)})`

const frames = (frame: References.StackFrame | undefined): ReadonlyArray<string> => {
  const found: Array<string> = []
  for (let at = frame; at !== undefined && found.length < 10; at = at.parent) {
    const where = /\(?((?:file:|\/)[^)]*:\d+:\d+)\)?\s*$/.exec(at.stack() ?? "")?.[1]
    found.push(where === undefined ? at.name : `${at.name} (${relative(where)})`)
  }
  return found
}

const relative = (where: string): string => {
  const path = where.replace(/^file:\/\//, "")
  const below = `${globalThis.process?.cwd?.() ?? ""}/`
  return path.startsWith(below) ? path.slice(below.length) : path
}

/** Where a suspended fiber waits: the frame on top of its stack. */
const waitingAt = (stack: ReadonlyArray<unknown>): string => {
  const name = operationName(stack.at(-1))
  return name === "AsyncFinalizer" ? "Async" : name === "unknown" ? "Async" : name
}

/** A capture in words. */
export const positionOf = (
  { frame, masked, operation, record, span, stack }: Capture,
  locate: Locate,
  forkedAt?: string
): Position => {
  const all = [
    ...new Set([operation, ...stack.toReversed()].flatMap((primitive) => placesOf(primitive, locate)))
  ]
  // A program's own lines say more than Effect's; a fiber that is wholly inside Effect has only those.
  const own = all.filter((place) => !isEffect(place))
  const places = own.length > 0 ? own : all
  return {
    fiber: fiberName(record),
    operation: operation === undefined ? waitingAt(stack) : operationName(operation),
    code: snippetOf(operation, locate),
    source: places[0],
    trace: places,
    calls: frames(frame),
    span,
    masked,
    forkedAt
  }
}
