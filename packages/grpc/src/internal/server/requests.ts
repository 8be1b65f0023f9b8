/**
 * The request stream of a call.
 *
 * Invariants
 * 1. One message is read per pull: what the handler does not take stays with the transport.
 * 2. A stream that ends well had been half-closed, as far as the transport can tell. grpc-js ends the stream of a
 *    cancelled call as well, and the cancel comes behind; so the end waits two turns of the event loop and looks again.
 * 3. After a known cancel the stream fails, also with messages unread.
 */
import { describe } from "@curfew/reason"
import { statusOf } from "@curfew/request"
import { status as Code } from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import { GrpcError } from "../../GrpcError.ts"
import type { Completeness, RequestStream } from "../../Server.ts"
import { turns } from "../turns.ts"
import type { CallState } from "./callState.ts"
import { limitReason } from "./limits.ts"
import { sentenceOf } from "./status.ts"

/** A request as the transport hands it on: not decoded yet, and never a falsy value, which grpc-js takes for none. */
export class Encoded {
  readonly bytes: Buffer
  constructor(bytes: Buffer) {
    this.bytes = bytes
  }
}

/** Decodes a request, at once, or says to the client that it could not be, and to the log why. */
export const decoded = <Req>(
  call: CallState,
  decode: (bytes: Buffer) => Req,
  message: unknown
): Effect.Effect<Req, GrpcError> => {
  const { bytes } = message as Encoded
  call.requestMessages++
  call.requestBytes += bytes.length
  if (call.requestBytes > call.limits.requestBytes) return tooMuch(call, "requestBytes")
  if (call.requestMessages > call.limits.requests) return tooMuch(call, "requests")
  try {
    return Exit.succeed(decode(bytes))
  } catch (error) {
    const details = "The request could not be decoded"
    return Effect.andThen(
      Effect.logWarning(`${details}. Check that both ends use the same definition.`, Cause.fail(error)),
      new GrpcError({ code: Code.INTERNAL, details, method: call.method })
    )
  }
}

const tooMuch = (call: CallState, limit: "requests" | "requestBytes"): Effect.Effect<never, GrpcError> => {
  call.exceeded(limit)
  const details = sentenceOf(limitReason(call.limits, limit))
  return new GrpcError({ code: Code.RESOURCE_EXHAUSTED, details, method: call.method }) as Effect.Effect<
    never,
    GrpcError
  >
}

export const requestsOf = <Req>(call: CallState, decode: (bytes: Buffer) => Req): RequestStream<Req> => {
  const pull: Effect.Effect<readonly [Req], GrpcError | Cause.Done> = Effect.suspend(() => {
    if (call.over) return cutOff(call)
    const next = call.next()
    switch (next) {
      case "open":
        return call.whenMore(pull)
      case "ended":
        return call.transport === "tunnel" ? endOf(call) : Effect.andThen(turns(2), ending(call))
      case "closed":
        return cutOff(call)
      default: {
        const request = decoded(call, decode, next)
        return Exit.isExit(request) && request._tag === "Success"
          ? Exit.succeed<readonly [Req]>([request.value as Req])
          : Effect.map(request, (value): readonly [Req] => [value])
      }
    }
  })
  const completeness = Effect.sync((): Completeness => {
    if (call.over && !call.answered) return "cut off"
    if (!call.requestsEnded) return "open"
    return call.transport === "tunnel" ? "half-closed" : "unknown"
  })
  return Object.assign(Stream.fromPull(Effect.succeed(pull)), { completeness })
}

const ending = (call: CallState): Effect.Effect<never, GrpcError | Cause.Done> =>
  Effect.suspend(() => endOf(call))

const endOf = (call: CallState): Effect.Effect<never, GrpcError | Cause.Done> =>
  call.over ? cutOff(call) : Cause.done()

const cutOff = (call: CallState): Effect.Effect<never, GrpcError> => {
  const reason = call.ended
  const code = reason === undefined ? Code.CANCELLED : statusOf(reason).grpc
  const why = reason === undefined ? "" : `: ${describe(reason)}`
  return new GrpcError({
    code,
    details: `The requests were cut off${why}`,
    method: call.method
  }) as Effect.Effect<never, GrpcError>
}
