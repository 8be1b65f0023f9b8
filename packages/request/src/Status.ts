import type { CancelReason } from "@curfew/reason"
import * as Cause from "effect/Cause"
import type { Answer } from "./Endpoint.ts"

/**
 * What a cancelled call is answered with, for both families of transports.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Status {
  /** The HTTP status code. 499 is nobody's standard and everybody's custom for a client that left. */
  readonly http: number
  /** The gRPC status code. */
  readonly grpc: number
}

const statuses: Readonly<Record<CancelReason["_tag"], Status>> = {
  ClientGone: { http: 499, grpc: 1 },
  Deadline: { http: 504, grpc: 4 },
  Shutdown: { http: 503, grpc: 14 },
  LimitExceeded: { http: 429, grpc: 8 },
  // Newer work has taken its place: the peer may look there, and need not send this again.
  Superseded: { http: 409, grpc: 10 },
  // Somebody stopped it on purpose; not a fault, and no invitation to retry at once.
  Requested: { http: 503, grpc: 1 },
  SiblingFailed: { http: 500, grpc: 13 },
  Unobserved: { http: 500, grpc: 13 },
  Unknown: { http: 500, grpc: 13 }
}

/**
 * What answers work that ended by an interrupt which was not its own: a bug of the server's, 500 and `INTERNAL`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const foreignInterrupt: Status = { http: 500, grpc: 13 }

/**
 * What answers a call that was cancelled for a reason (L48).
 *
 * | reason | HTTP | gRPC |
 * | --- | --- | --- |
 * | `ClientGone` | 499 | 1 `CANCELLED` |
 * | `Deadline` | 504 | 4 `DEADLINE_EXCEEDED` |
 * | `Shutdown` | 503 | 14 `UNAVAILABLE` |
 * | `LimitExceeded` | 429, or 503 | 8 `RESOURCE_EXHAUSTED` |
 * | `Superseded` | 409 | 10 `ABORTED` |
 * | `Requested` | 503 | 1 `CANCELLED` |
 * | others | 500 | 13 `INTERNAL` |
 *
 * **Example**
 *
 * ```ts
 * import { CancelReason } from "@curfew/reason"
 * import { statusOf } from "@curfew/request"
 *
 * statusOf(CancelReason.Shutdown({ phase: "force" })) // => { http: 503, grpc: 14 }
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const statusOf = (
  reason: CancelReason,
  options?: {
    /** Tells a limit of the client's (429, the default) from one of the server's (503). */
    readonly limit?: ((limit: string) => 429 | 503) | undefined
  }
): Status => {
  const status = statuses[reason._tag]
  return reason._tag === "LimitExceeded" && options?.limit !== undefined
    ? { ...status, http: options.limit(reason.limit) }
    : status
}

/**
 * What answers a call, where Curfew decides it: a cancelled or dropped call by its reason, a foreign interrupt as
 * `INTERNAL`. `undefined` for a value, a failure and a defect, which are the program's to answer.
 *
 * **Example**
 *
 * ```ts
 * import * as Cause from "effect/Cause"
 * import { statusOfAnswer } from "@curfew/request"
 *
 * statusOfAnswer({ _tag: "Failure", cause: Cause.interrupt() }) // => { http: 500, grpc: 13 }
 * statusOfAnswer({ _tag: "Failure", cause: Cause.fail("no such order") }) // => undefined
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const statusOfAnswer = (
  answer: Answer<unknown, unknown>,
  options?: Parameters<typeof statusOf>[1]
): Status | undefined => {
  switch (answer._tag) {
    case "Cancelled":
    case "Dropped":
      return statusOf(answer.reason, options)
    case "Failure":
      return Cause.hasInterruptsOnly(answer.cause) ? foreignInterrupt : undefined
    case "Value":
      return undefined
  }
}
