import { CancelReason } from "@curfew/reason"
import { CancelCell } from "@curfew/reason/CancelCell"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { millisUnsafe } from "./Argument.ts"
import * as TaskScope from "./TaskScope.ts"

/**
 * The task scope that answers for work after its caller has left: background work, and what a shield keeps running.
 *
 * **Guarantees**
 *
 * - **A tree of its own**: nothing that cancels a caller reaches the owner's tasks, and they see no caller's reason.
 * - **Drained at its end**: closing it takes no new work, waits for what runs, cancels what is left with
 *   `Shutdown`, and leaves behind as stuck what does not end.
 * - **Supervised**: a failure of an owned task reaches {@link OnUnhandled} exactly once.
 *
 * **When cancelled**
 *
 * An owner is not cancelled with the program that provides it; it ends when its layer is released.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { background, Owner } from "@curfew/scope"
 *
 * const program = Effect.gen(function* () {
 *   const task = yield* background("index the upload", Effect.succeed("indexed"))
 *   return yield* task.join
 * })
 * await Effect.runPromise(Effect.provide(program, Owner.layer({ name: "server" }))) // => "indexed"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export class Owner extends /* @__PURE__ */ Context.Service<Owner, TaskScope.TaskScope>()(
  "@curfew/scope/Owner"
) {
  /**
   * An owner that lives as long as the layer.
   *
   * @since 0.1.0
   */
  static readonly layer = (options?: OwnerOptions): Layer.Layer<Owner> => Layer.effect(Owner, make(options))

  /**
   * One owner for the whole process: every program that provides this layer shares it, and the last one to end
   * drains it. It has nothing of the program that came first but the clock: neither services nor log annotations.
   *
   * @since 0.1.0
   */
  static get process(): Layer.Layer<Owner> {
    return Layer.effect(Owner, shared)
  }
}

/**
 * What an owner can be told.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface OwnerOptions {
  readonly name?: string | undefined
  /** How long the end waits for running tasks before it cancels them. Default: ten seconds. */
  readonly drain?: Duration.Input | undefined
}

const force: CancelReason = /* @__PURE__ */ CancelReason.Shutdown({ phase: "force" })

const make = (options?: OwnerOptions): Effect.Effect<TaskScope.TaskScope, never, Scope.Scope> =>
  Effect.suspend(() => {
    // Read before there is anything to drain: at the end it would be too late to complain.
    const drain =
      options?.drain === undefined ? tenSeconds : millisUnsafe("the drain of the owner", options.drain)
    const made = TaskScope.makeIn(() => new CancelCell("owner", { name: options?.name }), {
      name: options?.name
    })
    return Effect.tap(made, (owner) => Effect.addFinalizer(() => ending(owner, drain)))
  })

const tenSeconds = 10_000

const ending = (owner: TaskScope.TaskScope, drain: number): Effect.Effect<void> =>
  Effect.flatMap(Effect.andThen(owner.close, owner.drain(drain)), (drained) =>
    drained ? Effect.void : owner.cancel(force)
  )

interface Shared {
  readonly owner: TaskScope.TaskScope
  readonly scope: Scope.Closeable
  users: number
}

let processOwner: Shared | undefined
// The second program that wants an owner waits while the first one makes it.
const making = /* @__PURE__ */ Semaphore.makeUnsafe(1)

/** Runs an effect, and the finalizers that it adds, without anything of the fiber's context but its clock. */
const clean = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.updateContext(effect, (context: Context.Context<never>) =>
    Context.make(Clock.Clock, Context.get(context, Clock.Clock))
  )

const shared: Effect.Effect<TaskScope.TaskScope, never, Scope.Scope> = /* @__PURE__ */ Effect.map(
  /* @__PURE__ */ Effect.acquireRelease(
    /* @__PURE__ */ making.withPermit(
      /* @__PURE__ */ Effect.suspend(() => {
        if (processOwner !== undefined) {
          processOwner.users++
          return Effect.succeed(processOwner)
        }
        const scope = Scope.makeUnsafe()
        const made = clean(Scope.provide(make({ name: "process" }), scope))
        return Effect.map(made, (owner) => {
          processOwner = { owner, scope, users: 1 }
          return processOwner
        })
      })
    ),
    (held) =>
      Effect.suspend(() => {
        held.users--
        if (held.users > 0) return Effect.void
        processOwner = undefined
        return Scope.close(held.scope, Exit.void)
      })
  ),
  (held) => held.owner
)

// The key alone: who only looks for the owner does not carry what makes one.
const ownerKey = { key: "@curfew/scope/Owner" } as Context.Key<Owner, TaskScope.TaskScope>

/**
 * The owner in a context. For those who write primitives of their own.
 *
 * @stability internal
 * @since 0.1.0
 */
export const ownerOfUnsafe = (context: Context.Context<never>): TaskScope.TaskScope =>
  Context.get(context as Context.Context<Owner>, ownerKey)
