/** What is kept for calls to come, so that a collection does not forget what they look like. */
import { Endpoint, PeerSignal } from "@curfew/request"
import * as Served from "@curfew/request/Served"
import { Owner, TaskScope } from "@curfew/scope"
import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { vi } from "vitest"
import { post } from "./support/edge.ts"

const kept: Array<unknown> = []
vi.mock("@curfew/reason/CancelCell", async (original) => {
  const real = await original<typeof import("@curfew/reason/CancelCell")>()
  return {
    ...real,
    keepUnsafe: (one: unknown) => {
      kept.push(one)
      real.keepUnsafe(one)
    }
  }
})

it.effect("one of each class is kept, however many calls there are", () =>
  Effect.gen(function* () {
    const owner = yield* TaskScope.make()
    const context = yield* Effect.context<never>()
    const edge = {
      answer: () => undefined,
      neverStarted: () => undefined,
      cancelled: () => undefined,
      dropped: () => Effect.void
    }
    for (let i = 0; i < 5; i++) {
      const served = {
        ...post,
        edge,
        policy: "shield",
        owner,
        context,
        peer: PeerSignal.makeUnsafe()
      } as const
      Served.startUnsafe(Effect.succeed(i), {
        ...served,
        request: Served.requestUnsafe({ id: "r" }, context)
      })
      const run = Endpoint.run(Effect.succeed(i), {
        ...post,
        peer: PeerSignal.makeUnsafe(),
        policy: "shield",
        owner
      })
      yield* Effect.provideService(run, Owner, owner)
    }
    const names = kept.map((one) => (one as object).constructor.name)
    expect(names).toEqual(expect.arrayContaining(["ServedCall", "CallState", "RequestState"]))
    expect(new Set(names).size).toBe(names.length)
  })
)
