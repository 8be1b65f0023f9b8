/**
 * What an edge answers in a handler's place.
 *
 * Invariants
 * 1. Each reason has one status, whichever half of the package answers.
 * 2. The words of a failure do not reach the client unless `mapError` says them, and no status that node refuses does.
 */
import { CancelReason } from "@curfew/reason"
import { statusOf } from "@curfew/request"
import * as Cause from "effect/Cause"
import type { ErrorAnswer } from "../EdgeOptions.ts"

const bodyBytes = "bodyBytes"

/** Why a request with a body over its limit ends. */
export const bodyTooLarge = (bytes: number): CancelReason =>
  CancelReason.LimitExceeded({ limit: bodyBytes, detail: `a body may have ${bytes} bytes` })

/** Nobody's bodies are too many; they are too large. */
export const httpStatus = (reason: CancelReason): number =>
  reason._tag === "LimitExceeded" && reason.limit === bodyBytes ? 413 : statusOf(reason).http

/** What stands against a request before its handler runs. */
export interface Refusal {
  readonly status: number
  readonly sentence: string
  /** Undefined where the request itself is wrong. */
  readonly reason: CancelReason | undefined
}

export const stopped: Refusal = {
  status: 503,
  sentence: "The server is shutting down.",
  reason: /* @__PURE__ */ CancelReason.Shutdown({ phase: "drain" })
}

export const tooMany = (requests: number): Refusal => ({
  status: 503,
  sentence: `Too many requests: ${requests} may be under way.`,
  reason: CancelReason.LimitExceeded({ limit: "requests", detail: `${requests} may be under way` })
})

/** What a client is told whose header is no time. */
export const notATime = (header: string): string =>
  `The header ${header} has to be a time such as 1500, 1500ms or 30s.`

const unanswered: ErrorAnswer = { status: 500, message: "The request could not be answered." }

export const errorAnswer = (
  cause: Cause.Cause<unknown>,
  mapError: ((error: unknown) => ErrorAnswer | undefined) | undefined
): ErrorAnswer & { readonly unforeseen?: Cause.Cause<unknown> } => {
  if (mapError === undefined || Cause.hasInterruptsOnly(cause)) return unanswered
  try {
    const told = mapError(Cause.squash(cause))
    if (told === undefined) return unanswered
    const { message, status } = told
    // Node throws at any other, and the client would wait for ever.
    return Number.isInteger(status) && status >= 200 && status <= 599 ? { status, message } : unanswered
  } catch (error) {
    return { ...unanswered, unforeseen: Cause.die(error) }
  }
}
