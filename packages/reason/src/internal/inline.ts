/**
 * Evaluating an effect inside the operation that runs: one name behind Effect's public interface, pinned with those of
 * `delivery.ts`.
 *
 * Invariants
 * 1. An effect that does not look as expected is given back, to be evaluated as the next operation.
 */
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"

const evaluate = "~effect/Effect/evaluate"

/**
 * Evaluates an effect within the running operation, so that neither an interrupt nor a scheduler comes between what is
 * done there and the effect. To be given back by the function of `withFiber`.
 */
export const inline = <A, E, R>(
  fiber: Fiber.Fiber<unknown, unknown>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const primitive = effect as unknown as {
    readonly [evaluate]?: (fiber: Fiber.Fiber<unknown, unknown>) => Effect.Effect<A, E, R>
  }
  return typeof primitive[evaluate] === "function" ? primitive[evaluate](fiber) : effect
}
