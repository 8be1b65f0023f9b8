import type { CancelScope } from "@curfew/promise"
import type { CancelReason } from "@curfew/reason"

/**
 * What became of an answer, or of a part of one. That the client has gone is an outcome like another.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Delivery =
  /** It was handed to node. */
  | { readonly _tag: "Sent" }
  /** The client has gone, and nothing was written. */
  | { readonly _tag: "PeerGone"; readonly reason: CancelReason }
  /** The request was answered before: by the handler, or by the edge at a deadline or a shutdown. */
  | { readonly _tag: "Answered" }

/**
 * One request, its answer, and the cancel scope of the work in between.
 *
 * **Guarantees**
 *
 * - **The policy holds (L39)**: under `cancel` the scope is cancelled when the client leaves; under `shield` it is not,
 *   and `clientGone` tells. A deadline, a limit and a shutdown cancel it in either case.
 * - **Answering never throws (L41)**: that the client has gone is a value.
 *
 * **When cancelled**
 *
 * As any {@link CancelScope}: the signals of its work are aborted, `run` and `checkpoint` reject with `Cancelled`.
 *
 * **Gotchas**
 *
 * Set `onCancel` and `defer` up before you take what they give back: in a request that is over both throw `Cancelled`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Exchange extends CancelScope {
  /** Of this request, in records and log lines. */
  readonly id: string
  /** Whether the client has left before its answer was out. */
  readonly clientGone: boolean
  /** Aborted when the client leaves, whatever the policy. Completion leaves it as it is. */
  readonly clientSignal: AbortSignal
  /** Answers the request. */
  readonly answer: (
    status: number,
    body?: string | Uint8Array,
    headers?: Readonly<Record<string, string | ReadonlyArray<string>>>
  ) => Delivery
  /** Sends a part of the answer, and waits until there is room for more or nobody is there to take it. */
  readonly write: (part: string | Uint8Array) => Promise<Delivery>
  /** Ends an answer that was sent in parts. */
  readonly finish: () => Delivery
}
