import type { CancelReason } from "@curfew/reason"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/**
 * What happens to a handler when its peer leaves.
 *
 * | policy | the handler | the edge |
 * | --- | --- | --- |
 * | `cancel` | is interrupted in the same step | waits for its clean-up, within the budget |
 * | `shield` | runs to its end under the server's owner | stays with it; the answer is dropped |
 * | `{ grace }` | is interrupted that long after the peer left, unless somebody else observes the work | stays with it |
 * | `detach` | runs to its end under the server's owner, with a `Scope` of its own | is done at once |
 *
 * It governs the peer's leaving and nothing else: a deadline, a limit and a forced shutdown interrupt every handler.
 *
 * @see cancellable and onDisconnect to mark a handler; DefaultOnDisconnect for those without a mark.
 * @stability unstable
 * @since 0.1.0
 */
export type OnDisconnect = "cancel" | "shield" | { readonly grace: Duration.Input } | "detach"

/**
 * The transports that a peer can leave by.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Transport = Extract<CancelReason, { readonly _tag: "ClientGone" }>["transport"]

/**
 * What an edge knows of a call before its handler starts.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CallInfo {
  /** `GET /orders/:id`, or `/pkg.Orders/Get`. Stands in the live tree and in reports. */
  readonly method: string
  /** Whether the peer waits for one answer or takes in a stream. */
  readonly kind: "request" | "stream"
  readonly transport: Transport
}

/**
 * The policy of handlers without a mark: `shield` for requests, `cancel` for response streams, because a stream whose
 * consumer left has nobody to run for.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { DefaultOnDisconnect } from "@curfew/request"
 *
 * const program = Effect.map(DefaultOnDisconnect, (policy) => [
 *   policy({ method: "POST /orders", kind: "request", transport: "http1" }),
 *   policy({ method: "GET /events", kind: "stream", transport: "http1" })
 * ])
 * Effect.runSync(program) // => ["shield", "cancel"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const DefaultOnDisconnect: Context.Reference<(call: CallInfo) => OnDisconnect> =
  /* @__PURE__ */ Context.Reference("@curfew/request/DefaultOnDisconnect", {
    defaultValue:
      () =>
      ({ kind }: CallInfo): OnDisconnect =>
        kind === "stream" ? "cancel" : "shield"
  })

/**
 * What can carry a mark: an effect, or a function of whatever shape the edge calls.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Handler = Effect.Effect<unknown, unknown, unknown> | ((...args: never) => unknown)

// A registered symbol: two copies of this package in one program read each other's marks.
const mark = /* @__PURE__ */ Symbol.for("@curfew/request/OnDisconnect")

/**
 * Marks a handler with what happens to it when its peer leaves. Gives a new handler; the old one is left as it was.
 *
 * **Guarantees**
 *
 * - **The mark wins**: over {@link DefaultOnDisconnect}; of two marks, the outer one.
 * - **The same handler**: an effect does the same, a function takes the same arguments and gives the same.
 *
 * **Gotchas**
 *
 * The mark sits on the value that it gives. What is piped on from there is a new value without it: mark last.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { onDisconnect, policyOf } from "@curfew/request"
 *
 * const upload = onDisconnect({ grace: "30 seconds" })(Effect.succeed("stored"))
 * policyOf(upload) // => { grace: "30 seconds" }
 * ```
 *
 * @see cancellable for the commonest mark.
 * @stability unstable
 * @since 0.1.0
 */
export const onDisconnect =
  (policy: OnDisconnect) =>
  <H extends Handler>(handler: H): H => {
    const marked =
      typeof handler === "function"
        ? sameFunction(handler)
        : Effect.suspend(() => handler as Effect.Effect<unknown>)
    return Object.defineProperty(marked, mark, { value: policy }) as H
  }

const sameFunction = (handler: (...args: never) => unknown): ((...args: never) => unknown) => {
  const marked = function (this: unknown, ...args: ReadonlyArray<never>): unknown {
    return handler.apply(this, args as never)
  }
  // Some routers go by the number of parameters.
  return Object.defineProperties(marked, {
    name: { value: handler.name, configurable: true },
    length: { value: handler.length, configurable: true }
  })
}

/**
 * Marks a handler that may be interrupted as soon as its peer leaves: `onDisconnect("cancel")`.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { cancellable, policyOf } from "@curfew/request"
 *
 * const search = cancellable((query: string) => Effect.succeed(query.length))
 * policyOf(search) // => "cancel"
 * Effect.runSync(search("abc")) // => 3
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const cancellable: <H extends Handler>(handler: H) => H = /* @__PURE__ */ onDisconnect("cancel")

/**
 * The mark of a handler, or `undefined` when it has none.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { policyOf } from "@curfew/request"
 *
 * policyOf(Effect.void) // => undefined
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const policyOf = (handler: Handler): OnDisconnect | undefined =>
  (handler as { readonly [mark]?: OnDisconnect })[mark]
