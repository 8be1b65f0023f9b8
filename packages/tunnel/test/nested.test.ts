/** Tunnels inside tunnels: the tunnel service is a service like any other. */

import { CleanupBudget, stuck } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { openForward, Services, serveReverse, TunnelService } from "../src/index.ts"
import { definition, EchoClient, implementation, unary } from "./support/echo.ts"
import { kinds, listen } from "./support/network.ts"

const echo = Services.empty.pipe(Services.add(definition, implementation()))

const nesting = Effect.gen(function* () {
  const service = yield* TunnelService.make({
    services: (self) => echo.pipe(Services.add(self.definition, self.implementation)),
    affinityKey: ({ metadata }) => String(metadata.get("level")[0] ?? "outer")
  })
  const { address } = yield* listen(service.addTo)
  const to = { address, credentials: grpc.credentials.createInsecure() }
  const inner = new grpc.Metadata()
  inner.set("level", "inner")
  return { service, to, inner }
})

describe("inside a forward tunnel", () => {
  it.live.each(kinds)("a %s tunnel carries calls, and ends with it", (kind) =>
    Effect.gen(function* () {
      const { inner, service, to } = yield* nesting
      const outer = yield* openForward(to)
      const client = outer.client(grpc.Client)
      const nested =
        kind === "forward"
          ? yield* openForward({ client }, { metadata: inner })
          : yield* Effect.andThen(
              serveReverse({ client }, echo, { metadata: inner }),
              service.reverse.awaitReverse("inner")
            )
      const answer = yield* Effect.promise(() => unary(nested.client(EchoClient), Buffer.alloc(200_000, 7)))
      expect(answer).toMatchObject({ code: grpc.status.OK })
      expect(answer.value?.equals(Buffer.alloc(200_000, 7))).toBe(true)
      yield* outer.close()
      expect((yield* nested.closed)._tag).toMatch(/^(Lost|ClosedByPeer)$/)
    }).pipe(Effect.scoped)
  )
})

describe("a tunnel inside another", () => {
  it.live("is closed by itself without being left behind, and the outer one goes on", () =>
    Effect.gen(function* () {
      const { to } = yield* nesting
      const outer = yield* openForward(to)
      yield* Effect.scoped(
        Effect.flatMap(openForward({ client: outer.client(grpc.Client) }), (nested) =>
          Effect.promise(() => unary(nested.client(EchoClient), Buffer.from("inside")))
        )
      )
      expect(yield* stuck).toEqual([])
      const answer = yield* Effect.promise(() => unary(outer.client(EchoClient), Buffer.from("outside")))
      expect(answer.value?.toString()).toBe("outside")
    }).pipe(Effect.provideService(CleanupBudget, Duration.infinity), Effect.scoped)
  )
})

describe("inside a reverse tunnel", () => {
  it.live("a forward tunnel carries calls to the agent", () =>
    Effect.gen(function* () {
      const { service, to } = yield* nesting
      const agent = yield* TunnelService.make({ services: echo })
      yield* serveReverse(to, Services.empty.pipe(Services.add(agent.definition, agent.implementation)))
      const outer = yield* service.reverse.awaitReverse()
      const nested = yield* openForward({ client: outer.client(grpc.Client) })
      const answer = yield* Effect.promise(() => unary(nested.client(EchoClient), Buffer.from("deep")))
      expect(answer.value?.toString()).toBe("deep")
    }).pipe(Effect.scoped)
  )
})
