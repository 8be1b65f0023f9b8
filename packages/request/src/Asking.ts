import type { CancelReason } from "@curfew/reason"
import { reportUnhandled } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { CurrentCall } from "./internal/currentCall.ts"
import type { Peer } from "./internal/peer.ts"

const withPeer = <A, E, R>(
  inCall: (peer: Peer) => Effect.Effect<A, E, R>,
  elsewhere: Effect.Effect<A>
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const call = fiber.getRef(CurrentCall)
    return call === undefined ? elsewhere : inCall(call.peer as Peer)
  })

/**
 * Whether somebody still waits for the answer: the peer is there, and the answer has not been sent. Outside of any call
 * it is true: nobody has left.
 *
 * **Guarantees**
 *
 * - **In any handler (L39)**: marked or not, in a shield, in a mask, in what the handler forked.
 *
 * **When cancelled**
 *
 * Answers in masks and finalizers.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { isActive } from "@curfew/request"
 *
 * Effect.runSync(isActive) // => true
 * ```
 *
 * @see awaitPeerGone to wait for it.
 * @stability unstable
 * @since 0.1.0
 */
export const isActive: Effect.Effect<boolean> = /* @__PURE__ */ withPeer(
  (peer) => Effect.sync(() => peer.state === "waiting"),
  /* @__PURE__ */ Effect.succeed(true)
)

/**
 * Waits until the peer has left, and gives the reason.
 *
 * **Guarantees**
 *
 * - **Not by completion (L40)**: an answered call never resumes it. Race it with {@link completed} where it could
 *   outlive the answer.
 * - **No ear left behind**: interrupting the wait removes its listener.
 *
 * **When cancelled**
 *
 * Ends by the interrupt, as any wait. In a marked handler that is what the peer's leaving does; a mask or a shield
 * resumes with the reason.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelReason } from "@curfew/reason"
 * import { awaitPeerGone, Endpoint, PeerSignal } from "@curfew/request"
 * import { Owner } from "@curfew/scope"
 *
 * const peer = PeerSignal.makeUnsafe()
 * const log: Array<string> = []
 * const handler = Effect.map(awaitPeerGone, (reason) => log.push(reason._tag))
 * const call = { method: "POST /orders", kind: "request", transport: "http2", peer } as const
 * const leaves = peer.gone(CancelReason.ClientGone({ transport: "http2" }))
 * const program = Effect.andThen(Effect.forkChild(leaves), Endpoint.run(handler, call))
 * await Effect.runPromise(Effect.provide(Effect.asVoid(program), Owner.layer()))
 * log // => ["ClientGone"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const awaitPeerGone: Effect.Effect<CancelReason> = /* @__PURE__ */ withPeer(
  (peer) => peer.goneOnce.await,
  Effect.never
)

/**
 * Waits until the answer has been handed to the transport.
 *
 * **Guarantees**
 *
 * - **Not by cancellation (L40)**: a peer that left before never resumes it.
 *
 * **When cancelled**
 *
 * Ends by the interrupt and leaves no listener behind.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const completed: Effect.Effect<void> = /* @__PURE__ */ withPeer(
  (peer) => Effect.asVoid(peer.completedOnce.await),
  Effect.never
)

/**
 * Runs an effect when the peer leaves, as long as the surrounding `Scope` is open.
 *
 * **Guarantees**
 *
 * - **Exactly once**: iff the peer left before the `Scope` closed; in a handler that is interrupted by it, too.
 * - **Awaited**: the `Scope` closes when the effect has ended, within the clean-up budget.
 *
 * **When cancelled**
 *
 * Once it has begun it runs to its end. Its defect reaches `OnUnhandled`.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelReason } from "@curfew/reason"
 * import { cancellable, Endpoint, onPeerGone, PeerSignal } from "@curfew/request"
 * import { Owner } from "@curfew/scope"
 *
 * const peer = PeerSignal.makeUnsafe()
 * const log: Array<string> = []
 * const handler = Effect.gen(function* () {
 *   yield* onPeerGone((reason) => Effect.sync(() => log.push(reason._tag)))
 *   yield* peer.gone(CancelReason.ClientGone({ transport: "http1" }))
 *   return yield* Effect.never
 * })
 * const call = { method: "GET /feed", kind: "stream", transport: "http1", peer } as const
 * const program = Endpoint.run(cancellable(Effect.scoped(handler)), call)
 * await Effect.runPromise(Effect.provide(Effect.asVoid(program), Owner.layer()))
 * log // => ["ClientGone"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const onPeerGone = <R>(
  effect: (reason: CancelReason) => Effect.Effect<unknown, never, R>
): Effect.Effect<void, never, R | Scope.Scope> =>
  withPeer((peer) => {
    let begun = false
    const once = (reason: CancelReason): Effect.Effect<void, never, R> =>
      Effect.uninterruptible(
        Effect.suspend(() => {
          if (begun) return Effect.void
          begun = true
          return Effect.catchCause(
            Effect.asVoid(
              boundedAt(
                Effect.suspend(() => effect(reason)),
                { name: "onPeerGone" }
              )
            ),
            (cause) => reportUnhandled("cleanup", "onPeerGone", cause, reason)
          )
        })
      )
    return Effect.andThen(
      // Registered first, so it comes last: for a scope that closes because the peer left.
      Effect.addFinalizer(() => {
        const reason = peer.goneOnce.value
        return reason === undefined ? Effect.void : once(reason)
      }),
      Effect.asVoid(Effect.forkScoped(Effect.flatMap(peer.goneOnce.await, once)))
    )
  }, Effect.void)
