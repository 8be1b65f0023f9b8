/**
 * The channel to a backend.
 *
 * **Invariants**
 * 1. Backpressure is real: grpc-js' retry buffer, which takes messages that are not written yet, is off.
 * 2. That nobody listens at the backend is said in a sentence of this program; what a backend answers stays as it is.
 */
import { Channel, type ChannelCredentials, status as Code } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Relayed } from "./relay.ts"
import type { Address } from "./values.ts"

export const backendChannel = (
  to: Address,
  credentials: ChannelCredentials,
  maxMessage: number
): Effect.Effect<Channel, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(
      () =>
        new Channel(to.text, credentials, {
          "grpc.per_rpc_retry_buffer_size": 0,
          "grpc.enable_retries": 0,
          "grpc.max_receive_message_length": maxMessage,
          "grpc.max_send_message_length": maxMessage,
          // A backend that comes back is found again soon.
          "grpc.max_reconnect_backoff_ms": 5_000
        })
    ),
    (channel) => Effect.sync(() => channel.close())
  )

/** Says in a sentence that there is no tunnel to take a call, or that each has as many calls as it may. */
export const withoutTunnel =
  (absent: string, full: string, open: () => boolean): Relayed["rephrase"] =>
  (status) => {
    const { code, details } = status
    if (code === Code.RESOURCE_EXHAUSTED && details.startsWith("Every tunnel ")) {
      return { ...status, details: full }
    }
    if (code !== Code.UNAVAILABLE || !details.startsWith("No tunnel ")) return status
    // Who has waited in vain beside a tunnel that is open has waited for room in it.
    return { ...status, details: details.endsWith("in time") && open() ? full : absent }
  }

const nobodyThere = /^(No connection established|Name resolution failed|Failed to connect)/

/** Why a connection came to nothing that somebody did answer: certificates that do not fit, for the most part. */
const answered = /Last error: Error: (?!connect )([^;\n]+?)(?:;.*)?\. Resolution note/

/** Says that the backend is not there in a sentence. */
export const rephrasing =
  (sentence: string): Relayed["rephrase"] =>
  (status) =>
    status.code === Code.UNAVAILABLE && nobodyThere.test(status.details)
      ? { ...status, details: [sentence, ...(answered.exec(status.details)?.slice(1) ?? [])].join(": ") }
      : status
