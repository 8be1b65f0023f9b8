/**
 * The handler of a call as one effect, which reads the request and writes the messages of a stream.
 *
 * Invariants
 * 1. It runs in the call's scope, which is its own.
 * 2. What the handler throws, or gives in place of an effect or a stream, is a defect of it.
 * 3. Messages go out in order, each when the peer has taken the one before.
 */
import { status as Code } from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { GrpcError } from "../../GrpcError.ts"
import type { HandlerCall } from "./handlerCall.ts"
import { type MethodSpec, streams } from "./method.ts"
import { decoded, requestsOf } from "./requests.ts"

/** The handler as one effect. The value is what a single answer is. */
export const handling = (spec: MethodSpec, call: HandlerCall): Effect.Effect<unknown, unknown> =>
  Effect.suspend(() => begun(spec, call))

const begun = (spec: MethodSpec, call: HandlerCall): Effect.Effect<unknown, unknown> => {
  const { definition, kind } = spec
  const decode = definition.requestDeserialize
  if (kind !== "unary" && kind !== "serverStream") return handled(spec, call, requestsOf(call, decode))
  const request = decoded(call, decode, call.request)
  return Exit.isExit(request) && request._tag === "Success"
    ? handled(spec, call, request.value)
    : Effect.flatMap(request, (value) => handled(spec, call, value))
}

const handled = (spec: MethodSpec, call: HandlerCall, request: unknown): Effect.Effect<unknown, unknown> => {
  if (call.phase === "waiting") call.phase = "running"
  const result = spec.handler(request, call)
  if (!streams(spec.kind)) {
    return Effect.isEffect(result)
      ? (result as Effect.Effect<unknown, unknown>)
      : Effect.die(wrongResult(call, "Effect"))
  }
  return Stream.isStream(result)
    ? written(spec, call, result as Stream.Stream<unknown, unknown>)
    : Effect.die(wrongResult(call, "Stream"))
}

const wrongResult = (call: HandlerCall, wanted: "Effect" | "Stream"): Error =>
  new Error(
    `The handler of ${call.method} has to give ${wanted === "Effect" ? "an Effect" : "a Stream"}; wrap a function that gives a promise in Server.fromPromise.`
  )

/**
 * Writes a stream, message by message, as fast as the peer takes it. The stream is open in the call's own scope, and what
 * waits for its next messages is one continuation, which leads to itself.
 */
const written = (
  spec: MethodSpec,
  call: HandlerCall,
  stream: Stream.Stream<unknown, unknown>
): Effect.Effect<void, unknown> =>
  Effect.withFiber(({ context }) =>
    Effect.flatMap(
      Channel.toTransform(Stream.toChannel(stream))(
        Cause.done(),
        Context.get(context as Context.Context<Scope.Scope>, Scope.Scope)
      ),
      (pull) => {
        const rest: Effect.Effect<void, unknown> = Effect.matchCauseEffect(pull, {
          onFailure: endedBy,
          onSuccess: (messages) => {
            const wait = writeFrom(spec, call, messages, 0)
            return wait === undefined ? rest : Effect.andThen(wait, rest)
          }
        })
        return rest
      }
    )
  )

const endedBy = (cause: Cause.Cause<unknown>): Effect.Effect<void, unknown> =>
  Pull.isDoneCause(cause) ? Effect.void : Effect.failCause(cause)

/** Writes messages from the one with this index on; gives what has to be waited for. */
const writeFrom = (
  spec: MethodSpec,
  call: HandlerCall,
  messages: ReadonlyArray<unknown>,
  from: number
): Effect.Effect<void, GrpcError> | undefined => {
  for (let index = from; index < messages.length; index++) {
    const encoded = encode(spec, messages[index])
    if (!Buffer.isBuffer(encoded)) return unencodable(call, encoded)
    const wait = call.write(encoded)
    if (wait === undefined) continue
    return index + 1 === messages.length
      ? wait
      : Effect.flatMap(wait, () => writeFrom(spec, call, messages, index + 1) ?? Effect.void)
  }
  return undefined
}

class Unencodable {
  readonly error: unknown
  constructor(error: unknown) {
    this.error = error
  }
}

/** The bytes of a response, or why there are none. */
export const encode = ({ definition }: MethodSpec, message: unknown): Buffer | Unencodable => {
  try {
    const bytes: unknown = definition.responseSerialize(message)
    if (Buffer.isBuffer(bytes)) return bytes
    if (bytes instanceof Uint8Array) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    return new Unencodable(new TypeError("The serializer gave no bytes."))
  } catch (error) {
    return new Unencodable(error)
  }
}

export const cannotEncode = "The response could not be encoded"

const unencodable = (call: HandlerCall, { error }: Unencodable): Effect.Effect<never, GrpcError> =>
  Effect.andThen(
    Effect.logError(
      `${cannotEncode}. Check what the handler of ${call.method} answers with.`,
      Cause.fail(error)
    ),
    new GrpcError({ code: Code.INTERNAL, details: cannotEncode, method: call.method })
  )
