import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { ContextFinished } from "./ContextFinished.ts"
import { CurrentCaller, requestKeys, strip } from "./internal/caller.ts"
import { makeRequest, RequestState } from "./internal/requestContext.ts"

/**
 * One request, for as long as anybody works on it.
 *
 * **Guarantees**
 *
 * - **One record (L37)**: it comes out once, at the later of `finish` and the end of the last lease.
 * - **No silent use after the end (L37)**: it follows the policy `afterEnd`.
 * - **Leased by itself (L38)**: handlers, and shielded work that they leave behind, hold it while they run.
 *
 * **When cancelled**
 *
 * A lease ends with its `Scope`. `run` finishes the request whatever becomes of its body.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface RequestContext {
  readonly id: string
  readonly name: string | undefined
  /** Holds the request open until the `Scope` closes. */
  readonly lease: Effect.Effect<void, ContextFinished, Scope.Scope>
  /** The edge is done with it. Runs once; a second call does nothing. */
  readonly finish: Effect.Effect<void>
  /**
   * Nobody waits any more for whoever still holds it: it is finished if it was not, the holders stand in the record as
   * those who outlived it, and what they do with it from now on is a use after the end.
   */
  readonly abandon: Effect.Effect<void>
  readonly finished: Effect.Effect<boolean>
  /** Finished, and the last lease has ended. */
  readonly ended: Effect.Effect<boolean>
  /** How many leases are open. */
  readonly users: Effect.Effect<number>
  /** `lease` for a mechanism that cannot keep a `Scope`: to be called at the start, its effect to be run at the end. */
  readonly hold: (name: string | undefined) => Effect.Effect<void>
}

/**
 * What is told about a request at its end.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface RequestRecord {
  readonly id: string
  readonly name: string | undefined
  /** Wall clock, milliseconds since 1970. */
  readonly startedAt: number
  /** From its start to `finish`. */
  readonly finishedAfter: Duration.Duration
  /** From its start to the end of the last lease. */
  readonly endedAfter: Duration.Duration
  /** How many leases there were. */
  readonly leases: number
  /** Who still held the request when it was finished, or took hold of it later. */
  readonly outlived: ReadonlyArray<string>
}

/**
 * What a request is made with.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface RequestOptions {
  readonly id: string
  readonly name?: string | undefined
  /** Receives the record. Masked, within the clean-up budget, in the fiber that ended last. */
  readonly onEnd: (record: RequestRecord) => Effect.Effect<unknown>
  /** A use after the end: a defect in tests, counted in production, or nothing. Default: `count`. */
  readonly afterEnd?: "die" | "count" | "ignore" | undefined
}

/**
 * The request that the running work belongs to. Descendants find it; background work does not.
 *
 * @see current to look at it with a check that it has not ended.
 * @stability unstable
 * @since 0.1.0
 */
export const CurrentRequest: Context.Reference<RequestContext | undefined> =
  /* @__PURE__ */ Context.Reference(requestKeys.request, {
    defaultValue: (): RequestContext | undefined => undefined
  })

/**
 * Makes a request. Whoever makes it finishes it.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { RequestContext } from "@curfew/request"
 *
 * const log: Array<string> = []
 * const program = Effect.gen(function* () {
 *   const request = yield* RequestContext.make({
 *     id: "r1",
 *     onEnd: (record) => Effect.sync(() => log.push(`${record.id} ended`))
 *   })
 *   const lease = Effect.scoped(Effect.andThen(request.lease, Effect.sync(() => log.push("leased"))))
 *   yield* lease
 *   yield* request.finish
 *   yield* request.finish
 * })
 * Effect.runSync(program)
 * log // => ["leased", "r1 ended"]
 * ```
 *
 * @see run to finish it by itself.
 * @stability unstable
 * @since 0.1.0
 */
export const make = (options: RequestOptions): Effect.Effect<RequestContext> =>
  Effect.withFiberSucceed((fiber) => makeRequest(options, fiber.context, fiber.getRef(Clock.Clock)))

/**
 * Runs work as part of a request: descendants find it, and shielded work leases it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const provide =
  (request: RequestContext) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.updateContext(self, (context: Context.Context<R>) =>
      context.pipe(
        Context.add(CurrentRequest, request),
        Context.add(
          CurrentCaller,
          request instanceof RequestState ? request : { hold: (name) => request.hold(name), strip }
        )
      )
    ) as Effect.Effect<A, E, R>

/**
 * Runs a body as a request and finishes it at the body's end.
 *
 * **Guarantees**
 *
 * - **Finished in any case (L37)**: by a value, a failure, a defect or a cancel; the record waits for leases only.
 *
 * **When cancelled**
 *
 * The body is interrupted, then the request is finished; the caller does not wait for its leases.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { RequestContext } from "@curfew/request"
 *
 * const ids: Array<string> = []
 * const program = RequestContext.run(
 *   { id: "r2", onEnd: (record) => Effect.sync(() => ids.push(record.id)) },
 *   Effect.map(RequestContext.CurrentRequest, (request) => request?.id)
 * )
 * Effect.runSync(program) // => "r2"
 * ids // => ["r2"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const run = <A, E, R>(options: RequestOptions, body: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    // Made within the region that ends it: between the two an interrupt would leave it unfinished.
    let request: RequestState | undefined
    return Effect.onExitPrimitive(
      Effect.withFiber<A, E, R>((fiber) => {
        request = makeRequest(options, fiber.context, fiber.getRef(Clock.Clock))
        return provide(request)(body)
      }),
      () => request?.finishUnsafe()
    )
  })

/**
 * The request that the running work belongs to, checked: a request that has ended follows its policy.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { RequestContext } from "@curfew/request"
 *
 * Effect.runSync(Effect.map(RequestContext.current, (request) => request._tag)) // => "None"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const current: Effect.Effect<Option.Option<RequestContext>> = /* @__PURE__ */ Effect.withFiberSucceed(
  (fiber) => {
    const request = fiber.getRef(CurrentRequest)
    if (request instanceof RequestState) request.useUnsafe()
    return Option.fromUndefinedOr(request)
  }
)

export { usedAfterEnd } from "./internal/requestContext.ts"
