import type { CancelReason } from "@curfew/reason"
import type { CallInfo } from "@curfew/request"
import type { RequestRecord } from "@curfew/request/RequestContext"

/**
 * What became of a request.
 *
 * | outcome | |
 * | --- | --- |
 * | `answered` | the handler's answer went out, to its last byte |
 * | `failed` | the handler failed; its client was told |
 * | `cancelled` | a deadline, a limit or a shutdown ended it; its client was told, or cut off in the middle of a stream |
 * | `gone` | the client had left before the answer was out |
 * | `abandoned` | its work had not ended when its server had, and nobody waited any longer |
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Outcome = "answered" | "failed" | "cancelled" | "gone" | "abandoned"

/**
 * What went out to the client, as far as the transport took it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface SentAnswer {
  /** The status that was on its way, if any was. */
  readonly status: number | undefined
  /** Bytes of the body that were handed to the transport. Plain handlers write by themselves: there nobody counts. */
  readonly bytes: number | undefined
  /** Parts of a response stream that were handed to the transport. Not counted for plain handlers either. */
  readonly parts: number | undefined
  /** Whether that was all of it. */
  readonly whole: boolean
}

/**
 * What is known of a request when it starts.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface EdgeRequest {
  /** Of this request, in records and log lines. */
  readonly id: string
  readonly method: string
  /** `GET /orders/:id`; of a plain handler that was given no route, its method. */
  readonly route: string
  /** As it came, with the query. */
  readonly url: string
  /** Without the query. */
  readonly path: string
  readonly transport: CallInfo["transport"]
}

/**
 * The one record of a request: made when it has been answered and nobody works on it any more.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface EdgeRecord extends RequestRecord, EdgeRequest {
  /** 499 when the client had gone before its answer was out to the last byte, whatever status was on the way. */
  readonly status: number
  readonly outcome: Outcome
  /** Why it was cancelled or refused, or that its client has gone. */
  readonly reason: CancelReason | undefined
  /** The handler gave an answer, and nobody was there for it. */
  readonly dropped: boolean
  readonly sent: SentAnswer
}
