/**
 * A client: its channel, and a function for each method of its definition.
 *
 * Invariants
 * 1. A channel that is made here is closed with the scope; any other is its owner's.
 * 2. What the calls of a method share is made once, with the client; a call is made when its function's effect runs.
 */
import { Channel, type ChannelInterface, type ServiceDefinition } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { CallOptions, ClientOptions, ClientTo } from "../../Client.ts"
import { GrpcError } from "../../GrpcError.ts"
import { interceptorsOf } from "./channelCall.ts"
import { openCall, type Requests, responses, type Settings, settingsOf, unaryCall } from "./open.ts"

export const makeClient = (
  definition: ServiceDefinition,
  to: ClientTo,
  options: ClientOptions
): Effect.Effect<Record<string, unknown>, GrpcError, Scope.Scope> =>
  Effect.map(channelTo(to), (channel) => {
    const ofStub = "client" in to ? interceptorsOf(to.client) : undefined
    const methods: Record<string, unknown> = {}
    for (const [name, method] of Object.entries(definition)) {
      const interceptors = options.interceptors ?? ofStub?.(method) ?? []
      methods[name] = methodOf(settingsOf(method, channel, options, interceptors))
    }
    return methods
  })

const channelTo = (to: ClientTo): Effect.Effect<ChannelInterface, GrpcError, Scope.Scope> => {
  if ("channel" in to) {
    return typeof to.channel?.createCall === "function"
      ? Effect.succeed(to.channel)
      : Effect.fail(
          GrpcError.make(
            "INVALID_ARGUMENT",
            "The channel is none: give a channel of grpc-js; that of a tunnel is its `grpc`."
          )
        )
  }
  if ("client" in to) return Effect.sync(() => to.client.getChannel())
  const open = Effect.try({
    try: () =>
      new Channel(to.address, to.credentials, {
        "grpc.per_rpc_retry_buffer_size": 0,
        ...to.channelOptions
      }),
    catch: (error) =>
      GrpcError.make(
        "INVALID_ARGUMENT",
        `No channel can be made to ${String(to.address)} (${error instanceof Error ? error.message : String(error)}): ` +
          "give an address such as localhost:50051 and credentials of grpc-js."
      )
  })
  return Effect.acquireRelease(open, (channel) => Effect.sync(() => channel.close()))
}

const methodOf = (settings: Settings): unknown => {
  const { requestStream, responseStream } = settings.method
  if (!requestStream && !responseStream) {
    return (request: unknown, options?: CallOptions) => unaryCall(settings, request, options)
  }
  return (request: unknown, options?: CallOptions) => {
    const requests: Requests<unknown, unknown, unknown> = requestStream
      ? { stream: request as Stream.Stream<unknown, unknown, unknown> }
      : { message: request }
    return responseStream ? responses(settings, requests, options) : single(settings, requests, options)
  }
}

const single = <E, R>(
  settings: Settings,
  requests: Requests<unknown, E, R>,
  options: CallOptions | undefined
): Effect.Effect<unknown, GrpcError | E, R> =>
  Effect.scoped(
    Effect.flatMap(openCall<unknown, unknown, E, R>(settings, requests, options), (call) => call.answer)
  ) as Effect.Effect<unknown, GrpcError | E, R>
