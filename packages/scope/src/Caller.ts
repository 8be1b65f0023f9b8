import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { startUnsafe } from "./internal/child.ts"

/**
 * What work takes with it when it starts on behalf of a caller, for those who write edges of their own: an edge puts
 * it into the context of a request.
 *
 * @stability internal
 * @since 0.1.0
 */
export interface Caller {
  /** To be called when the work starts; the effect is to be run when it has ended, and counts once. */
  readonly hold: (name: string | undefined) => Effect.Effect<void>
  /** The caller's context without what belongs to the caller's request. */
  readonly strip: (context: Context.Context<never>) => Context.Context<never>
}

/**
 * The caller on whose behalf the fiber works, if any.
 *
 * @stability internal
 * @since 0.1.0
 */
export const CurrentCaller: Context.Reference<Caller | undefined> = /* @__PURE__ */ Context.Reference(
  "@curfew/scope/Caller",
  { defaultValue: (): Caller | undefined => undefined }
)

/**
 * Holds the fiber's caller for work that runs in its context and may outlive it: from now until the work has ended.
 * `around` goes around the work, `follow` is told the fiber it runs in.
 *
 * @stability internal
 * @since 0.1.0
 */
export const holdUnsafe = (
  fiber: Fiber.Fiber<unknown, unknown>,
  name: string | undefined
): {
  readonly around: <A, E, R>(work: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  readonly follow: (child: Fiber.Fiber<unknown, unknown>) => void
} => {
  const release = fiber.getRef(CurrentCaller)?.hold(name)
  if (release === undefined) return nobody
  const { context } = fiber
  let released = false
  const once = Effect.suspend(() => {
    released = true
    return release
  })
  return {
    around: (work) => Effect.onExitPrimitive(work, () => once),
    follow: (child) => {
      // Interrupted before its first operation the work has run no finalizer.
      child.addObserver(() => {
        if (!released) startUnsafe(context, once)
      })
    }
  }
}

/**
 * What is held of nobody.
 *
 * @stability internal
 * @since 0.1.0
 */
export const nobody: ReturnType<typeof holdUnsafe> = { around: (work) => work, follow: () => {} }

/**
 * The fiber's context without what belongs to the request of its caller.
 *
 * @stability internal
 * @since 0.1.0
 */
export const withoutCaller = (
  fiber: Fiber.Fiber<unknown, unknown>,
  context: Context.Context<never>
): Context.Context<never> => fiber.getRef(CurrentCaller)?.strip(context) ?? context
