import type { Owner } from "@curfew/scope"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { CurrentShutdown, type Hook, type Stage } from "./internal/registry.ts"
import { runStaged } from "./internal/runStaged.ts"
import type { Report } from "./Report.ts"
import type { Signals } from "./Signals.ts"

/**
 * How a program is shut down.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ShutdownOptions {
  /** Stands in the report and in the live tree. Default: `main`. */
  readonly name?: string | undefined
  /** How long work may end by itself. Default: 20 seconds. */
  readonly drain?: Duration.Input | undefined
  /** How long cancelled work may clean up. Default: 8 seconds: with the drain below the usual 30 of a process manager. */
  readonly force?: Duration.Input | undefined
  /**
   * What a second signal does: moves on to the next phase (`force`, the default; a third then ends the wait for
   * clean-up), or gives up at once (`exit`). The report is made in any case.
   */
  readonly secondSignal?: "force" | "exit" | undefined
  /**
   * Within this time a further signal of the same name is the same signal, delivered twice: one Ctrl-C reaches a whole
   * process group, and a wrapper (`npm start`) passes on what it has got itself. Counted from the first one, so that a
   * key that is held down moves on. Default: 100 milliseconds; zero counts each.
   */
  readonly signalWindow?: Duration.Input | undefined
  /** Default: none; the shutdown then begins with the end of the program, by `begin`, or by a cancel. */
  readonly signals?: Signals | undefined
  /** Is given the report as soon as it is made, also when `run` itself was cancelled. What it throws is unhandled. */
  readonly onReport?: ((report: Report) => void) | undefined
}

/**
 * What became of the program: its exit, `None` when it was abandoned, and the report.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Ended<A, E> {
  readonly exit: Option.Option<Exit.Exit<A, E>>
  readonly report: Report
}

/**
 * Runs a program and shuts it down in stages: stop accepting, drain, cancel, abandon and report.
 *
 * | stage | what happens | until |
 * | --- | --- | --- |
 * | stop | `onStop` hooks: take no new work | they are done |
 * | drain | `onDrain` hooks; tasks of the {@link Owner} run to their end | nothing is left, or `drain` has passed |
 * | force | what is left is cancelled with `Shutdown`; when that has ended, at the latest at half of the time, the program is too, and `onForce` hooks run, if it did not drain | all has ended, or `force` has passed |
 * | report | what has not ended is left behind as stuck, by name | at once |
 *
 * **Guarantees**
 *
 * - **Bounded (L43)**: it ends within `drain` + `force` whatever handlers do, short of blocking the thread: hooks,
 *   masks and finalizers that hang included.
 * - **Moves on (L43)**: a second signal ends the present phase at once. What a terminal and a wrapper both deliver within
 *   `signalWindow` is one signal.
 * - **One report (L43)**: what was drained, cancelled and abandoned, by name, and how long each took.
 * - **An owner (L24)**: the program gets an {@link Owner} of its own, open until the drain is over.
 * - **Clean-up shrinks (L16)**: the budget of clean-up that begins is at most half of what is left to force.
 *
 * **When cancelled**
 *
 * As by a first signal: it goes through the stages, gives the report to `onReport`, and then ends interrupted.
 *
 * **Gotchas**
 *
 * The window is one of time: a wrapper that passes a signal on later than that sends a second one. Run `node` itself
 * where that matters.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { background } from "@curfew/scope"
 * import { Shutdown } from "@curfew/shutdown"
 *
 * const log: Array<string> = []
 * const server = Effect.gen(function* () {
 *   yield* Shutdown.onStop("listener", Effect.sync(() => log.push("closed")))
 *   yield* background("mail", Effect.delay(Effect.sync(() => log.push("sent")), "5 millis"))
 *   yield* Shutdown.begin
 *   return yield* Effect.never
 * })
 * const program = Shutdown.run(Effect.scoped(server), { drain: "1 second", force: "1 second" })
 * const { report } = await Effect.runPromise(program)
 * log // => ["closed", "sent"]
 * const fates = report.items.map((item) => `${item.name}: ${item.fate}`)
 * fates.sort() // => ["listener: drained", "mail: drained", "main: drained"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const run = <A, E, R>(
  main: Effect.Effect<A, E, R>,
  options?: ShutdownOptions
): Effect.Effect<Ended<A, E>, never, Exclude<R, Owner>> => runStaged(main, options ?? {})

const register = <R>(
  stage: Hook["stage"],
  name: string,
  effect: Effect.Effect<unknown, never, R>
): Effect.Effect<void, never, R | Scope.Scope> =>
  Effect.withFiber((fiber) => {
    const registry = fiber.getRef(CurrentShutdown)
    if (registry === undefined) return Effect.void
    const context = fiber.context as Context.Context<never>
    return Effect.asVoid(
      Effect.acquireRelease(
        Effect.sync(() =>
          registry.register({ stage, name, context, effect: effect as Effect.Effect<unknown> })
        ),
        (remove) => Effect.sync(remove)
      )
    )
  })

/**
 * Registers what stops accepting: the listener's close, idle connections' end. Runs as soon as a shutdown begins, as
 * long as the `Scope` is open; in a program without a shutdown it does nothing. All hooks of a stage run side by side.
 *
 * **When cancelled**
 *
 * The hook is cancelled when the shutdown begins to force, and left behind when that has passed.
 *
 * @see run for an example.
 * @stability unstable
 * @since 0.1.0
 */
export const onStop = <R>(
  name: string,
  effect: Effect.Effect<unknown, never, R>
): Effect.Effect<void, never, R | Scope.Scope> => register("stop", name, effect)

/**
 * Registers what ends when a server has drained. Runs after {@link onStop}; the drain waits for it.
 *
 * **When cancelled**
 *
 * As {@link onStop}.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const onDrain = <R>(
  name: string,
  effect: Effect.Effect<unknown, never, R>
): Effect.Effect<void, never, R | Scope.Scope> => register("drain", name, effect)

/**
 * Registers what breaks off by force what did not drain: connections that are destroyed, a server's own forced end.
 * Starts with the cancel of the program, when cancelled handlers have ended or have had half of the time: their answers
 * are out by then. Does not run when everything has drained.
 *
 * **When cancelled**
 *
 * It is left behind when the time to force has passed.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const onForce = <R>(
  name: string,
  effect: Effect.Effect<unknown, never, R>
): Effect.Effect<void, never, R | Scope.Scope> => register("force", name, effect)

/**
 * Begins the shutdown from inside the program, as a first signal would. Does not wait; a second call does nothing.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const begin: Effect.Effect<void> = /* @__PURE__ */ Effect.withFiberSucceed((fiber) =>
  fiber.getRef(CurrentShutdown)?.begin()
)

/**
 * How far the shutdown is, for health checks: a server that is not `running` is not ready for new work.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Shutdown } from "@curfew/shutdown"
 *
 * Effect.runSync(Shutdown.stage) // => "running"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const stage: Effect.Effect<Stage> = /* @__PURE__ */ Effect.withFiberSucceed(
  (fiber) => fiber.getRef(CurrentShutdown)?.stage ?? "running"
)

export type { Stage }
