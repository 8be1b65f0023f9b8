import { CancelReason } from "@curfew/reason"
import { CancelScope, Owner, withSignal } from "@curfew/scope"
import { expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import { started } from "../../../test/support/recorder.ts"
import { delayCancellation, stopCancellation } from "../src/index.ts"

it.effect("L44: a signal that is made in a shield is not aborted by its waiter's cancel", () =>
  Effect.gen(function* () {
    const shields: ReadonlyArray<(work: Effect.Effect<void>) => Effect.Effect<void, never, Owner>> = [
      (work) => delayCancellation(work),
      (work) => stopCancellation(work)
    ]
    for (const protect of shields) {
      const latch = Latch.makeUnsafe()
      const ended = yield* Deferred.make<boolean>()
      const ready = yield* Deferred.make<CancelScope.CancelScope>()
      const work = withSignal((signal) =>
        Effect.andThen(
          latch.await,
          Effect.suspend(() => Deferred.succeed(ended, signal.aborted))
        )
      )
      yield* started(
        CancelScope.run((scope) =>
          Effect.andThen(Deferred.succeed(ready, scope), protect(Effect.asVoid(work)))
        )
      )
      yield* (yield* Deferred.await(ready)).cancel(CancelReason.Superseded())
      yield* latch.open
      expect(yield* Deferred.await(ended)).toBe(false)
    }
  }).pipe(Effect.provide(Owner.layer()))
)
