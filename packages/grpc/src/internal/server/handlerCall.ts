/**
 * What a handler is given of its call.
 *
 * Invariants
 * 1. It is the call itself: what the handler asks is asked of the state, and what it sends goes the way of every answer.
 * 2. Everything here is a getter, because most calls are asked nothing.
 * 3. A handler's metadata is checked and copied before anything of it is sent.
 */
import { CancelReason } from "@curfew/reason"
import { awaitPeerGone, completed, onPeerGone } from "@curfew/request"
import { CurrentCall } from "@curfew/request/Endpoint"
import type { Instant } from "@curfew/scope"
import { status as Code } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { GrpcError } from "../../GrpcError.ts"
import type { CallTunnel, ServerCall, WorkBudget } from "../../ServerCall.ts"
import { CallState, stateOf } from "./callState.ts"
import { BadMetadata, checked } from "./metadata.ts"
import { budgetOf } from "./workBudget.ts"

/** The call of a peer signal. */
export const callOf = (peer: object): ServerCall | undefined => stateOf(peer) as HandlerCall | undefined

export abstract class HandlerCall extends CallState implements ServerCall {
  abstract get raw(): object
  protected abstract get through(): CallTunnel | undefined

  get deadline(): Option.Option<number> {
    return this.deadlineAt === Number.POSITIVE_INFINITY ? Option.none() : Option.some(this.deadlineAt)
  }

  get cancel(): ServerCall["cancel"] {
    return (status) =>
      Effect.sync(() => {
        if (this.answered || this.ended !== undefined) return false
        this.chosen = new GrpcError(status)
        this.stop(CancelReason.Requested({ message: status.details }))
        return true
      })
  }

  get sendHeaders(): ServerCall["sendHeaders"] {
    return (headers) =>
      Effect.suspend(() => {
        const metadata = checked(headers)
        if (metadata instanceof BadMetadata) return this.#refused("headers", metadata)
        if (this.over || this.answered) return Effect.void
        this.phase = "responding"
        this.putHeaders(metadata)
        return Effect.void
      })
  }

  get setTrailers(): ServerCall["setTrailers"] {
    return (trailers) =>
      Effect.suspend(() => {
        const metadata = checked(trailers)
        if (metadata instanceof BadMetadata) return this.#refused("trailers", metadata)
        this.trailers = metadata
        return Effect.void
      })
  }

  #refused(what: string, { detail }: BadMetadata): Effect.Effect<never, GrpcError> {
    const details = `The ${what} of the answer cannot be sent`
    const error = new GrpcError({ code: Code.INTERNAL, details, method: this.method })
    return Effect.andThen(Effect.logError(`${details}: ${detail}. Leave it out, or change it.`), error)
  }

  get tunnel(): Option.Option<CallTunnel> {
    return Option.fromUndefinedOr(this.through)
  }

  #asking<A, E, R>(ask: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.provideService(ask, CurrentCall, {
      method: this.method,
      kind: "request",
      transport: this.transport,
      peer: this.signal,
      policy: "cancel",
      observe: Effect.succeed(false)
    })
  }

  get isActive(): Effect.Effect<boolean> {
    return Effect.sync(() => this.signal.state === "waiting" && !this.over)
  }

  get awaitPeerGone(): Effect.Effect<CancelReason> {
    return this.#asking(awaitPeerGone)
  }

  get onPeerGone(): ServerCall["onPeerGone"] {
    return (effect) => this.#asking(onPeerGone(effect))
  }

  get completed(): Effect.Effect<void> {
    return this.#asking(completed)
  }

  get reason(): Effect.Effect<Option.Option<CancelReason>> {
    return Effect.sync(() => Option.fromUndefinedOr(this.ended))
  }

  get cancelledAt(): Effect.Effect<Option.Option<Instant.Instant>> {
    return Effect.sync(() => Option.fromUndefinedOr(this.endedAt))
  }

  get budget(): WorkBudget {
    return budgetOf(this)
  }
}
