import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type * as Semaphore from "effect/Semaphore"
import { countResource, freePermits, plural, show } from "./internal/counting.ts"
import { nothing, type Ran, withRegistry } from "./internal/registry.ts"

/**
 * Something that is acquired and has to be released as often.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Resource {
  readonly name: string
  /** Counts one up. One operation: it cannot be cancelled half-way. */
  readonly acquire: Effect.Effect<void>
  /** Counts one down. */
  readonly release: Effect.Effect<void>
  /** Says that it is being used; after the last release that is a finding. */
  readonly use: Effect.Effect<void>
  /** Acquired into the surrounding scope, by `acquireRelease`. */
  readonly scoped: Effect.Effect<void, never, Scope.Scope>
  /** Held around an effect, by `acquireUseRelease`. */
  readonly around: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** How many are acquired and not released. */
  readonly held: () => number
}

/**
 * Counts what is acquired and released, and finds what is not released, released twice or used after its release.
 *
 * To be made in the `setup` of a subject, which ties it to the sweep; elsewhere it counts and nobody reads it.
 *
 * **Guarantees**
 *
 * - **Per run**: after each run as many are held as before it. With `until: "end"` only after the scope of the
 *   setup is closed, for what a pool or a cache may keep.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Probe, sweep } from "@curfew/testing"
 *
 * const leaky = {
 *   name: "leaky",
 *   setup: Effect.map(Probe.resource("socket"), (socket) =>
 *     // wrong: cancelled between the two, it is never released
 *     Effect.flatMap(socket.acquire, () => Effect.ensuring(Effect.yieldNow, socket.release))
 *   )
 * }
 * const report = Effect.runSync(sweep(leaky))
 * report.findings[0]?.kind // => "NotReleased"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const resource = (
  name: string,
  options?: { readonly until?: "run" | "end" | undefined }
): Effect.Effect<Resource> =>
  withRegistry((registry) => countResource(registry, name, options?.until ?? "run"))

/**
 * One begun context, such as that of a request.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Lease {
  /** Says that the context is being used; after `end` that is a finding. */
  readonly use: Effect.Effect<void>
  readonly end: Effect.Effect<void>
}

/**
 * Finds use of a context after its end: a request's logger, transaction or services in work that outlived it.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Probe, sweep } from "@curfew/testing"
 *
 * const request = {
 *   name: "request",
 *   setup: Effect.map(Probe.context("request"), (context) =>
 *     Effect.acquireUseRelease(
 *       context.begin,
 *       ({ use }) => Effect.forkDetach(Effect.andThen(Effect.yieldNow, use)), // wrong: outlives the request
 *       ({ end }) => end
 *     )
 *   )
 * }
 * const report = Effect.runSync(sweep(request))
 * report.findings[0]?.kind // => "UsedAfterEnd"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const context = (name: string): Effect.Effect<{ readonly begin: Effect.Effect<Lease> }> =>
  withRegistry((registry) => ({
    begin: Effect.sync(() => {
      let active = true
      registry.see({ what: "began", probe: name, detail: "" })
      return {
        use: Effect.sync(() => {
          registry.see({ what: "used", probe: name, detail: active ? "" : "after its end" })
          if (active) return
          registry.note({ kind: "UsedAfterEnd", probe: name, message: `${name} used after its end` })
        }),
        end: Effect.sync(() => {
          active = false
          registry.see({ what: "ended", probe: name, detail: "" })
        })
      }
    })
  }))

/**
 * Counts the free permits of something like a semaphore before and after each run; a difference is a finding.
 *
 * Takes a `Semaphore`, whose permits it counts by taking and giving them back, or any reader of a number.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Semaphore from "effect/Semaphore"
 * import { Probe, sweep } from "@curfew/testing"
 *
 * const limited = {
 *   name: "limited",
 *   setup: Effect.gen(function* () {
 *     const semaphore = yield* Semaphore.make(2)
 *     yield* Probe.permits("slots", semaphore)
 *     return semaphore.withPermits(1)(Effect.yieldNow)
 *   })
 * }
 * Effect.runSync(sweep(limited)).ok // => true
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const permits = (
  name: string,
  read: Semaphore.Semaphore | Effect.Effect<number> | (() => number)
): Effect.Effect<void> =>
  withRegistry((registry) => {
    const free = Effect.isEffect(read)
      ? read
      : typeof read === "function"
        ? Effect.sync(read)
        : freePermits(read)
    let before = 0
    registry.checks.push({
      ...nothing,
      name,
      before: Effect.map(free, (count) => {
        before = count
      }),
      after: () =>
        Effect.map(free, (count) =>
          count === before
            ? []
            : [
                {
                  kind: "PermitLost",
                  probe: name,
                  message: `${name} had ${plural(before, "free permit")} before the run and ${count} after it`
                }
              ]
        )
    })
  })

/**
 * Asks a question after each cancelled run, on the state that the run left behind; another answer than the expected
 * one is a finding. Takes the place of the default question, which is the program itself, run once more.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Ref from "effect/Ref"
 * import { Probe, sweep } from "@curfew/testing"
 *
 * const program = {
 *   name: "half a transfer",
 *   setup: Effect.gen(function* () {
 *     const from = yield* Ref.make(10)
 *     const to = yield* Ref.make(0)
 *     yield* Probe.answer("the sum", Effect.zipWith(Ref.get(from), Ref.get(to), (a, b) => a + b), 10)
 *     return Effect.andThen(
 *       Ref.update(from, (n) => n - 1),
 *       Ref.update(to, (n) => n + 1)
 *     )
 *   })
 * }
 * const report = Effect.runSync(sweep(program))
 * report.findings[0]?.kind // => "WrongAnswer"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const answer = <A, E>(
  name: string,
  ask: Effect.Effect<A, E>,
  expected: NoInfer<A>
): Effect.Effect<void> =>
  withRegistry((registry) => {
    registry.questions.push({
      name,
      ask,
      isRight: (exit) => {
        if (Exit.isFailure(exit)) return `${name}: the question failed: ${String(exit.cause)}`
        return Equal.equals(exit.value, expected)
          ? undefined
          : `${name}: ${show(exit.value)} in place of ${show(expected)}`
      }
    })
  })

/**
 * A check of the program's own, after each run: false, or a sentence that says what is wrong, is a finding.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Probe, sweep } from "@curfew/testing"
 *
 * const program = {
 *   name: "a flag",
 *   setup: Effect.gen(function* () {
 *     let busy = false
 *     const set = (to: boolean) => Effect.sync(() => (busy = to))
 *     yield* Probe.invariant("not busy", () => !busy)
 *     return Effect.andThen(set(true), set(false)) // wrong: the second is clean-up, and stands after the work
 *   })
 * }
 * const report = Effect.runSync(sweep(program))
 * report.findings[0]?.message // => "not busy does not hold"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const invariant = (
  name: string,
  holds: (ran: {
    /** How the run ended. */
    readonly exit: Exit.Exit<unknown, unknown>
    /** Whether a cancel was sent in it. */
    readonly cancelled: boolean
  }) => boolean | string | Effect.Effect<boolean | string>
): Effect.Effect<void> =>
  withRegistry((registry) => {
    registry.checks.push({
      ...nothing,
      name,
      after: (ran: Ran) =>
        Effect.map(
          Effect.suspend(() => {
            const held = holds(ran)
            return Effect.isEffect(held) ? held : Effect.succeed(held)
          }),
          (held) =>
            held === true
              ? []
              : [
                  {
                    kind: "Invariant",
                    probe: name,
                    message: held === false ? `${name} does not hold` : `${name}: ${held}`
                  }
                ]
        )
    })
  })
