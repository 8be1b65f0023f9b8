/**
 * Writing to a peer that may leave meanwhile.
 *
 * Invariants
 * 1. A pending write does not outlast the peer: transports neither call back nor fail a write that they dropped.
 * 2. The peer's leaving absorbs the write's own interrupt and its typed failure, never a defect.
 * 3. It is logged at debug, once a call.
 */
import type { CancelReason } from "@curfew/reason"
import {
  type CancelCell,
  CurrentCell,
  cancelledAboveUnsafe,
  type Entering,
  forkCellUnsafe,
  keepUnsafe,
  maskedReasonUnsafe,
  show,
  type Unshown
} from "@curfew/reason/CancelCell"
import { failureOf } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { Sent } from "../send.ts"
import type { Peer } from "./peer.ts"

let keeps = false

/** A write that runs. Its cell is made when somebody looks, or when it waits. */
class Writing<A, E> implements Entering<A, E>, Unshown {
  readonly #waiter: Fiber.Fiber<unknown, unknown>
  #cell: CancelCell | undefined = undefined
  fiber: Fiber.Fiber<A, E> = undefined as never
  before: Unshown | undefined = undefined

  constructor(waiter: Fiber.Fiber<unknown, unknown>) {
    this.#waiter = waiter
  }

  get cell(): CancelCell {
    if (this.#cell !== undefined) return this.#cell
    show(this.before)
    const cell = forkCellUnsafe(this.#waiter, "scope", "send")
    this.#cell = cell
    cell.fiber = this.fiber
    return cell
  }

  show(): void {
    void this.cell
  }

  enter(given: Context.Context<never>): Context.Context<never> {
    return Context.add(given, CurrentCell, this.cell)
  }

  settle(): undefined {}

  /** It has ended. */
  unlink(): void {
    this.#cell?.unlink()
  }
}

export const sendTo = <A, E, R>(peer: Peer, write: Effect.Effect<A, E, R>): Effect.Effect<Sent<A>, E, R> =>
  Effect.withFiber((fiber) => {
    if (peer.goneOnce.value !== undefined) return gone(peer, peer.goneOnce.value)
    if (!keeps) {
      keeps = true
      keepUnsafe(new Writing(undefined as never))
    }
    const writing = new Writing<A, E>(fiber)
    return Child.startAndAwait<A, E, Sent<A>, E, R>(
      () => {
        const context = fiber.context as Context.Context<R>
        // Below a cancel it ends before its first operation, which takes the cell.
        const running =
          cancelledAboveUnsafe(fiber) === undefined
            ? Child.startUnshown(context, write, writing)
            : Child.startUnder(context, writing.cell, write, writing)
        writing.fiber = running
        // A write that ends at once outlasts nobody.
        if (running.pollUnsafe() === undefined) {
          const { cell } = writing
          running.addObserver(() => cell.unlink())
          stopWith(peer, cell, running)
        } else writing.unlink()
        return running
      },
      (exit) => outcome(peer, exit),
      (running) =>
        // It runs masked. What the write itself is interrupted by has no reason here, and nobody left to tell.
        Effect.suspend(() => {
          if (running.pollUnsafe() !== undefined) return Effect.void
          writing.cell.inherit(maskedReasonUnsafe(fiber) ?? { _tag: "Unknown" })
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
