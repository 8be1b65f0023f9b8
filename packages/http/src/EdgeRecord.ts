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
  /** Bytes of the body that were handed to the transport. */
  readonly bytes: number
  /** Parts of a response stream that were handed to the transport. */
  readonly parts: number
  /** Whether that was all of it. */
  readonly whole: boolean
}

/**
 * The one record of a request: made when it has been answered and nobody works on it any more.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface EdgeRecord extends RequestRecord {
  readonly method: string
  /** `GET /orders/:id`. */
  readonly route: string
  /** Without the query. */
  readonly path: string
  readonly transport: CallInfo["transport"]
  /** 499 when the client had gone before its answer was out to the last byte, whatever status was on the way. */
  readonly status: number
  readonly outcome: Outcome
  /** Why it was cancelled, or that its client has gone. */
  readonly reason: CancelReason | undefined
  /** The handler gave an answer, and nobody was there for it. */
  readonly dropped: boolean
  readonly sent: SentAnswer
}
