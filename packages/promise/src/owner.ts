import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import { quiet, toPromise } from "./internal/bridge.ts"
import { durationOf } from "./internal/durations.ts"
import { contextOfOwner, servicesOf } from "./internal/launch.ts"
import { type Held, processOwner as held, hold } from "./internal/owners.ts"
import { runNow } from "./internal/runNow.ts"
import { named, spawn } from "./internal/tasks.ts"
import type { OnUnhandled, Work } from "./Options.ts"
import type { Task } from "./Task.ts"

/**
 * Answers for work after its caller has left: background tasks, what {@link stopCancellation} keeps running, shared work,
 * and scopes that no other scope surrounds.
 *
 * @see owner to make one, processOwner for the one that is there already.
 * @stability unstable
 * @since 0.1.0
 */
export interface Owner extends AsyncDisposable {
  readonly name: string | undefined
  /** Starts background work. Its failure reaches `onUnhandled` once, whether `join` is awaited or not (L26). */
  readonly spawn: {
    <A>(work: Work<A>): Task<A>
    <A>(name: string, work: Work<A>): Task<A>
  }
  /** How many tasks live. */
  readonly size: number
  /** Drains it and ends it. Asked again, it waits for the same end. */
  readonly [Symbol.asyncDispose]: () => Promise<void>
}

const toOwner = (get: () => Held): Owner => ({
  get name() {
    return get().tasks.name
  },
  spawn: <A>(first: string | Work<A>, second?: Work<A>): Task<A> => spawn(get(), ...named(first, second)),
  get size() {
    return runNow(get().context, get().tasks.size)
  },
  [Symbol.asyncDispose]: () => quiet(toPromise(get().end()))
})

/**
 * Makes an owner. Disposing it drains it: it takes no new work, waits for what runs, cancels what is left with `Shutdown`,
 * and leaves behind as stuck what does not end.
 *
 * **Guarantees**
 *
 * - **Nothing stays out (L24)**: when it is disposed, no work of it runs, other than stuck work.
 * - **Supervised (L26)**: each failure that nobody was given reaches `onUnhandled` exactly once.
 * - **A typed refusal (L27)**: after its end `spawn` throws `TaskScopeClosed`. What else would have been handed to it stays
 *   with its caller (L46).
 *
 * **When cancelled**
 *
 * It is not cancelled with its users; it ends when it is disposed.
 *
 * **Example**
 *
 * ```ts
 * import { owner } from "@curfew/promise"
 *
 * const failures: Array<unknown> = []
 * {
 *   await using background = owner({ name: "mail", onUnhandled: ({ error }) => failures.push(error) })
 *   background.spawn("welcome", async () => {
 *     throw "no route"
 *   })
 * }
 * failures // => ["no route"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const owner = (options?: {
  readonly name?: string | undefined
  /** How long its end waits for running work before it cancels it. Default: ten seconds. */
  readonly drain?: Duration.Input | undefined
  /** The clean-up budget of its work. Default: ten seconds. */
  readonly budget?: Duration.Input | undefined
  /** Receives the failures of its work that nobody waits for. Default: they are logged. */
  readonly onUnhandled?: OnUnhandled | undefined
}): Owner => {
  const drain = options?.drain === undefined ? undefined : durationOf("drain", options.drain)
  const own = hold(servicesOf(options ?? {})(Context.empty()), { name: options?.name, drain })
  const made = toOwner(() => own)
  contextOfOwner.set(made, own.context)
  return made
}

/**
 * The owner of work that names no other. It is there from the first such work on, and does not end by itself: dispose it
 * where the process shuts down, or let the process end.
 *
 * @see owner for one with an end, a budget and a receiver of its own.
 * @stability unstable
 * @since 0.1.0
 */
export const processOwner: Owner = /* @__PURE__ */ toOwner(held)
