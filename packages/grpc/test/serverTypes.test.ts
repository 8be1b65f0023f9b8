import type { Owner } from "@curfew/scope"
import type { handleBidiStreamingCall, handleUnaryCall, ServiceDefinition } from "@grpc/grpc-js"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { expectTypeOf, test } from "vitest"
import { type MethodsOfHandlers, Server } from "../src/index.ts"
import { definition, echo } from "./support/serving.ts"

class Prices extends Context.Service<Prices, number>()("test/Prices") {}

test("handlers are typed by the definition, and what they need is what the service needs", () => {
  const needy = Server.make(definition, {
    ...echo,
    Unary: (request) => {
      expectTypeOf(request).toEqualTypeOf<string>()
      return Effect.map(Prices, String)
    },
    Bidi: (requests) => Stream.mapEffect(requests, () => Effect.map(Prices, String))
  })
  expectTypeOf(needy).toEqualTypeOf<Effect.Effect<Server.Service, never, Prices | Owner>>()
  expectTypeOf(Server.make(definition, echo)).toEqualTypeOf<Effect.Effect<Server.Service, never, Owner>>()
  // @ts-expect-error the answer is not what the method gives
  Server.make(definition, { ...echo, Unary: () => Effect.succeed(1) })
  // @ts-expect-error a stream is wanted
  Server.make(definition, { ...echo, ServerStream: () => Effect.succeed("x") })
  const { Bidi: _, ...three } = echo
  // @ts-expect-error a handler is missing
  Server.make(definition, three)
})

test("where a definition does not say what streams, the generated handlers do", () => {
  type Generated = { Get: handleUnaryCall<number, string>; Talk: handleBidiStreamingCall<number, string> }
  const served = Server.makeFor<MethodsOfHandlers<Generated>>()({} as ServiceDefinition, {
    Get: (id) => Effect.succeed(id.toFixed()),
    Talk: (ids) => Stream.map(ids, (id) => id.toFixed())
  })
  expectTypeOf(served).toEqualTypeOf<Effect.Effect<Server.Service, never, Owner>>()
})
