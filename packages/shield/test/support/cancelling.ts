/** Running work so that a test can cancel it, by a native interrupt or by the cancel of its scope. */
import { CancelReason } from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"

export type How = "native" | "scope"
export const hows: ReadonlyArray<How> = ["native", "scope"]

/** What a scope's cancel says. */
export const requested: CancelReason = CancelReason.Requested({ message: "stop" })

/** The reason that work sees when it is cancelled in this way. */
export const reasonOf = (how: How): CancelReason => (how === "native" ? CancelReason.Unknown() : requested)

/** Forks and starts at once. */
export const forked = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.forkChild(self, { startImmediately: true })

export interface Cancellable<A, E> {
  readonly cancel: Effect.Effect<void>
  readonly exit: Effect.Effect<Exit.Exit<A, E>>
  readonly ended: () => boolean
}

/** Starts the work at once; in a scope of its own when a scope's cancel is to end it. */
export const cancellable = <A, E, R>(
  how: How,
  work: Effect.Effect<A, E, R>
): Effect.Effect<Cancellable<A, E>, never, R> => cancellingItself(how, () => work)

/** The same for work that can cancel whoever waits for it. */
export const cancellingItself = <A, E, R>(
  how: How,
  work: (cancel: Effect.Effect<void>) => Effect.Effect<A, E, R>
): Effect.Effect<Cancellable<A, E>, never, R> =>
  Effect.gen(function* () {
    const exit = yield* Deferred.make<Exit.Exit<A, E>>()
    let ended = false
    const kept = (cancel: Effect.Effect<void>) =>
      Effect.onExit(work(cancel), (seen) => {
        ended = true
        return Effect.asVoid(Deferred.succeed(exit, seen))
      })
    if (how === "native") {
      const fiber = yield* forked(
        Effect.withFiber<A, E, R>((own) => work(Effect.sync(() => own.interruptUnsafe())))
      )
      fiber.addObserver(() => {
        ended = true
      })
      return {
        cancel: Effect.sync(() => fiber.interruptUnsafe()),
        exit: Fiber.await(fiber),
        ended: () => ended
      }
    }
    const scope = yield* Deferred.make<CancelScope.CancelScope>()
    yield* forked(
      CancelScope.run((own) =>
        Effect.andThen(Deferred.succeed(scope, own), kept(Effect.asVoid(own.cancel(requested))))
      )
    )
    return {
      cancel: Effect.flatMap(Deferred.await(scope), (own) => Effect.asVoid(own.cancel(requested))),
      exit: Deferred.await(exit),
      ended: () => ended
    }
  })

export const isPureInterrupt = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)

export const causeOf = (exit: Exit.Exit<unknown, unknown>): Cause.Cause<unknown> => {
  if (Exit.isSuccess(exit)) throw new Error("a success has no cause")
  return exit.cause
}
