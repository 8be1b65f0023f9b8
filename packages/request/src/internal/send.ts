/**
 * Writing to a peer that may leave meanwhile.
 *
 * Invariants
 * 1. A pending write does not outlast the peer: transports neither call back nor fail a write that they dropped.
 * 2. The peer's leaving absorbs the write's own interrupt and its typed failure, never a defect.
 * 3. It is logged at debug, once a call.
 */
import type { CancelReason } from "@curfew/reason"
import { type CancelCell, forkCellUnsafe, maskedReasonUnsafe } from "@curfew/reason/CancelCell"
import { failureOf } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { Sent } from "../send.ts"
import type { Peer } from "./peer.ts"

export const sendTo = <A, E, R>(peer: Peer, write: Effect.Effect<A, E, R>): Effect.Effect<Sent<A>, E, R> =>
  Effect.withFiber((fiber) => {
    if (peer.goneOnce.value !== undefined) return gone(peer, peer.goneOnce.value)
    let cell!: CancelCell
    return Child.startAndAwait<A, E, Sent<A>, E, R>(
      () => {
        cell = forkCellUnsafe(fiber, "scope", "send")
        const running = Child.forkUnsafe(fiber.context as Context.Context<R>, cell, write)
        // A write that ends at once outlasts nobody.
        if (running.pollUnsafe() === undefined) stopWith(peer, cell, running)
        return running
      },
      (exit) => outcome(peer, exit),
      (running) =>
        // It runs masked. What the write itself is interrupted by has no reason here, and nobody left to tell.
        Effect.suspend(() => {
          cell.inherit(maskedReasonUnsafe(fiber) ?? { _tag: "Unknown" })
          return Child.awaitEnd(running)
        })
    )
  })

/** Cancels the write when the peer leaves, or has left during its first steps. */
const stopWith = (peer: Peer, cell: CancelCell, running: Fiber.Fiber<unknown, unknown>): void => {
  const { value } = peer.goneOnce
  if (value !== undefined) cell.cancel(value)
  else running.addObserver(peer.goneOnce.listen((reason) => cell.cancel(reason)))
}

const outcome = <A, E>(peer: Peer, exit: Exit.Exit<A, E>): Effect.Effect<Sent<A>, E> => {
  if (exit._tag === "Success") return Effect.succeed({ _tag: "Sent", value: exit.value })
  const reason = peer.goneOnce.value
  if (reason === undefined) return Effect.failCause(exit.cause)
  const failure = failureOf(exit.cause)
  return failure !== undefined && Cause.hasDies(failure) ? Effect.failCause(exit.cause) : gone(peer, reason)
}

const gone = (peer: Peer, reason: CancelReason): Effect.Effect<Sent<never>> => {
  const answer = Effect.succeed<Sent<never>>({ _tag: "PeerGone", reason })
  if (peer.logged) return answer
  peer.logged = true
  return Effect.andThen(Effect.logDebug(`Nobody is there to send this to (${reason._tag}).`), answer)
}
