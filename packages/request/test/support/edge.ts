import { CancelReason } from "@curfew/reason"
import { type CallInfo, Endpoint, type OnDisconnect, PeerSignal } from "@curfew/request"
import { OnUnhandled, Owner, TaskScope, type Unhandled } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"

export const left: CancelReason = CancelReason.ClientGone({ transport: "http1" })

export const post: CallInfo = { method: "POST /orders", kind: "request", transport: "http1" }
export const feed: CallInfo = { method: "GET /feed", kind: "stream", transport: "http1" }

/** A server's owner for the length of a `Scope`, and who hears of failures that nobody took. */
const server: Effect.Effect<
  { readonly owner: TaskScope.TaskScope; readonly unhandled: Array<Unhandled> },
  never,
  Scope.Scope
> = Effect.gen(function* () {
  const unhandled: Array<Unhandled> = []
  const owner = yield* TaskScope.make({ name: "server" })
  return { owner, unhandled }
})

type Options<A, E, R> = Partial<Endpoint.EndpointOptions<A, E, R>> & { readonly on?: OnDisconnect }

/** Runs one call in a fiber of the edge's own. */
export const serve = <A, E, R2 = never>(handler: Effect.Effect<A, E>, options: Options<A, E, R2> = {}) =>
  Effect.gen(function* () {
    const { owner, unhandled } = yield* server
    const peer = PeerSignal.makeUnsafe()
    const { on, ...rest } = options
    const edge = Endpoint.run(handler, {
      ...post,
      peer,
      owner,
      ...(on === undefined ? {} : { policy: on }),
      ...rest
    }).pipe(
      Effect.provideService(Owner, owner),
      Effect.provideService(OnUnhandled, (it) => Effect.sync(() => unhandled.push(it)))
    ) as Effect.Effect<Endpoint.Answer<A, E>>
    const fiber = yield* Effect.forkChild(edge, { startImmediately: true })
    return { owner, unhandled, peer, fiber, answer: Fiber.join(fiber) }
  })

/** How many answers were dropped so far for a method, in metrics of the test's own. */
export const dropped = (call: CallInfo = post): Effect.Effect<number> =>
  Effect.map(
    Metric.value(
      Metric.withAttributes(Endpoint.answersDropped, { method: call.method, transport: call.transport })
    ),
    (state) => state.count
  )
