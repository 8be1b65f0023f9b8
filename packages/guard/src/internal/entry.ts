/**
 * A finalizer that can leave its `Scope` before that closes: an entry in the state of the `Scope` itself. A `Scope` of its
 * own, which can leave as well, would take as long as all the rest of a guard.
 *
 * Invariants
 * 1. It stands among the finalizers of the `Scope` in the order in which they came, and is run like any of them.
 * 2. What leaves is gone: a `Scope` that is open for long keeps nothing of it, and one with nothing left in it is empty.
 * 3. The state of a `Scope` is of Effect's public types; `guard.test.ts` pins what is done with it here.
 */
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"

export type Finalizer = (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>

/** Enters a finalizer, which the key names, in a `Scope` that is not closed. */
export const enterUnsafe = (scope: Scope.Scope, key: object, finalizer: Finalizer): void => {
  const { state } = scope
  if (state._tag !== "Open") {
    scope.state = { _tag: "Open", finalizerKey: key, finalizer, finalizers: undefined }
    return
  }
  state.finalizers ??= new Map()
  if (state.finalizer !== undefined && state.finalizerKey !== undefined) {
    state.finalizers.set(state.finalizerKey, state.finalizer)
    state.finalizerKey = undefined
    state.finalizer = undefined
  }
  state.finalizers.set(key, finalizer)
}

/** Takes it out, where it has not been run. */
export const leaveUnsafe = (scope: Scope.Scope, key: object): void => {
  const { state } = scope
  if (state._tag !== "Open") return
  if (state.finalizerKey === key) scope.state = { _tag: "Empty" }
  else if (state.finalizers?.delete(key) === true && state.finalizers.size === 0)
    scope.state = { _tag: "Empty" }
}
