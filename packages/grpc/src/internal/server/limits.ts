/**
 * Limits, read once where they are given.
 *
 * Invariants
 * 1. Every limit has a bound unless somebody asks for none, by infinity.
 * 2. What means nothing is an `IllegalArgument` before anything is served: compared with NaN, no call passes a limit.
 */
import { CancelReason } from "@curfew/reason"
import { IllegalArgument } from "@curfew/scope"
import { countUnsafe, millisUnsafe } from "@curfew/scope/Argument"
import * as Duration from "effect/Duration"
import type { CallLimits, ConcurrencyLimits } from "../../ServerLimits.ts"

export interface ResolvedLimits {
  readonly requests: number
  readonly requestBytes: number
  readonly responses: number
  readonly responseBytes: number
  readonly time: number
  readonly work: number
}

/** The limits of a call; the first that says something counts. */
export const resolveLimits = (...given: ReadonlyArray<CallLimits | undefined>): ResolvedLimits => {
  const pick = <K extends keyof CallLimits>(key: K): CallLimits[K] | undefined =>
    given.find((limits) => limits?.[key] !== undefined)?.[key]
  const count = (key: "requests" | "requestBytes" | "responses" | "responseBytes", otherwise: number) =>
    countUnsafe(`the limit of ${key}`, pick(key) ?? otherwise, 0)
  return {
    requests: count("requests", 1_000_000),
    requestBytes: count("requestBytes", 2 ** 30),
    responses: count("responses", 10_000_000),
    responseBytes: count("responseBytes", 2 ** 32),
    time: millisUnsafe("the limit of time", pick("time") ?? Duration.days(1)),
    work: units(pick("work") ?? 1_000_000_000)
  }
}

/** Units of the handler's own, which may be parts of one. */
const units = (work: number): number => {
  if (work >= 0) return work
  throw new IllegalArgument({
    argument: "the limit of work",
    value: work,
    expected: "a number of units from 0 on, or Infinity for no limit"
  })
}

type Bound = (key: string) => number

export interface ResolvedConcurrency {
  readonly calls: number
  readonly perMethod: Bound
  readonly perPeer: Bound
}

export const resolveConcurrency = (limits: ConcurrencyLimits | undefined): ResolvedConcurrency => ({
  calls: countUnsafe("the limit of calls", limits?.calls ?? 10_000, 0),
  perMethod: bound("the limit of calls per method", limits?.perMethod ?? 10_000),
  perPeer: bound("the limit of calls per peer", limits?.perPeer ?? 1_000)
})

const bound = (argument: string, limit: number | Bound): Bound => {
  if (typeof limit === "function") return limit
  const count = countUnsafe(argument, limit, 0)
  return () => count
}

/** Why a call that passed one of its limits ends, in words that say how much it may use. */
export const limitReason = (limits: ResolvedLimits, limit: keyof CallLimits): CancelReason =>
  CancelReason.LimitExceeded({ limit, detail: allowed[limit](limits) })

const allowed: Readonly<Record<keyof CallLimits, (limits: ResolvedLimits) => string>> = {
  requests: ({ requests }) => `the client sent more than ${requests} requests`,
  requestBytes: ({ requestBytes }) => `the client sent more than ${requestBytes} bytes of requests`,
  responses: ({ responses }) => `the handler gave more than ${responses} responses`,
  responseBytes: ({ responseBytes }) => `the handler gave more than ${responseBytes} bytes of responses`,
  time: ({ time }) => `the call took longer than ${Duration.format(Duration.millis(time))}`,
  work: ({ work }) => `the call spent its ${work} units of work`
}
