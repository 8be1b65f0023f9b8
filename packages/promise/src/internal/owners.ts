/**
 * Owners as values: a context to start work in, and a way to end.
 *
 * Invariants
 * 1. An owner is Effect's own, from `Owner.layer`, built into a `Scope` that closing the value closes.
 * 2. The process has at most one owner of its own. It is made when the first work starts without another, and it ends when
 *    somebody ends it; until then it costs one entry in the live tree.
 * 3. Ending is done once; whoever asks again waits for the same end.
 */
import { Owner, type TaskScope } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { runNow } from "./runNow.ts"

export interface Held {
  readonly context: Context.Context<never>
  readonly tasks: TaskScope.TaskScope
  readonly end: () => Fiber.Fiber<void, unknown>
}

export const hold = (
  context: Context.Context<never>,
  options: { readonly name?: string | undefined; readonly drain?: Duration.Duration | undefined }
): Held => {
  const scope = Scope.makeUnsafe()
  const owned = Context.merge(context, runNow(context, Layer.buildWithScope(Owner.layer(options), scope)))
  let ending: Fiber.Fiber<void, unknown> | undefined
  return {
    context: owned as Context.Context<never>,
    tasks: Context.get(owned, Owner),
    end: () => {
      ending ??= Child.startUnsafe(context, Scope.close(scope, Exit.void))
      return ending
    }
  }
}

let ofProcess: Held | undefined

export const processOwner = (): Held => {
  ofProcess ??= hold(Context.empty(), { name: "promises" })
  return ofProcess
}
