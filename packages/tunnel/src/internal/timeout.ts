/**
 * Rule `deadline-travels`: the `grpc-timeout` header, at most eight digits and a unit.
 *
 * **Invariants**
 * 1. What is written never promises more time than there is, except by less than one millisecond.
 * 2. What is malformed reads as no deadline at all.
 */
import type { Deadline, Metadata } from "@grpc/grpc-js"

export const timeoutKey = "grpc-timeout"

const units: ReadonlyArray<readonly [unit: string, millis: number]> = [
  ["m", 1],
  ["S", 1_000],
  ["M", 60_000],
  ["H", 3_600_000]
]

const millisOf: Readonly<Record<string, number>> = {
  n: 1e-6,
  u: 1e-3,
  m: 1,
  S: 1_000,
  M: 60_000,
  H: 3_600_000
}

/** Formats a remaining time. A time that has passed is one nanosecond, which every peer takes as passed. */
export const formatTimeout = (millis: number): string => {
  if (millis <= 0) return "1n"
  for (const [unit, size] of units) {
    const amount = size === 1 ? Math.ceil(millis) : Math.floor(millis / size)
    if (amount < 1e8) return `${amount}${unit}`
  }
  return "99999999H"
}

/** The last text that was parsed, and what it says: callers with one time-out all send the same. */
let lastText = ""
let lastMillis: number | undefined

/** Parses a remaining time in milliseconds. Peers that bend the grammar (a sign, more digits) are understood. */
export const parseTimeout = (text: string): number | undefined => {
  if (text === lastText) return lastMillis
  lastMillis = parsed(text)
  lastText = text
  return lastMillis
}

const parsed = (text: string): number | undefined => {
  const match = /^([+-]?\d+)([HMSmun])$/.exec(text)
  if (match === null) return undefined
  const millis = Number(match[1]) * (millisOf[match[2] as string] as number)
  return Number.isFinite(millis) ? millis : undefined
}

/** Takes the timeout out of request metadata: the last value counts. */
export const takeTimeout = (metadata: Metadata): number | undefined => {
  const values = metadata.get(timeoutKey)
  if (values.length === 0) return undefined
  const text = values.at(-1)
  metadata.remove(timeoutKey)
  return typeof text === "string" ? parseTimeout(text) : undefined
}

/** A grpc-js deadline as milliseconds since the epoch; `Infinity` for none. */
export const deadlineMillis = (deadline: Deadline | null | undefined): number => {
  if (deadline === null || deadline === undefined) return Number.POSITIVE_INFINITY
  const millis = typeof deadline === "number" ? deadline : deadline.getTime()
  return Number.isNaN(millis) ? Number.POSITIVE_INFINITY : millis
}
