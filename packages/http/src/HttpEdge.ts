import type { OnDisconnect } from "@curfew/request"
import { Owner } from "@curfew/scope"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as HttpMethod from "effect/http/HttpMethod"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { ClientDeadline, Heartbeat, UnreadBody } from "./EdgeOptions.ts"
import type { EdgeRecord, EdgeRequest } from "./EdgeRecord.ts"
import { edgeOf } from "./internal/router/routing.ts"
import { checkOptions } from "./internal/router/settings.ts"

/**
 * What one route has for itself.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface RouteOptions {
  /** What its client's leaving does, to its handler and to its response stream. */
  readonly onDisconnect?: OnDisconnect | undefined
  /** How long its handler may take to answer. */
  readonly deadline?: Duration.Input | undefined
}

/**
 * How an edge treats the requests of its routes. An edge within another one takes over what it does not say itself.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface EdgeOptions {
  /** The policy of handlers without a mark. Default: `DefaultOnDisconnect`, which shields requests. */
  readonly default?: OnDisconnect | undefined
  /** The same by method. */
  readonly methods?: { readonly [M in HttpMethod.HttpMethod]?: OnDisconnect | undefined } | undefined
  /** By name, `GET /orders/:id`, with all prefixes. Stands above marks. */
  readonly routes?: { readonly [name: string]: OnDisconnect | RouteOptions | undefined } | undefined
  /** The policy of response streams whose route has neither mark nor name. Default: `DefaultOnDisconnect`: `cancel`. */
  readonly streams?: OnDisconnect | undefined
  /** How long a handler may take to answer; then it is cancelled with `Deadline`, and its client told 504. Default: for ever. */
  readonly deadline?: Duration.Input | undefined
  /** A client's own deadline, for the handler and for its response stream. Default: clients have no say. */
  readonly clientDeadline?: ClientDeadline | undefined
  /** What becomes of a body that nobody reads. Default: read ahead up to 1 MiB. */
  readonly body?: UnreadBody | undefined
  /** The most that a body may have, whoever reads it; over it 413. Default: 1 MiB. */
  readonly bodyBytes?: number | undefined
  /** What a client means that ends its side of the connection and may still read. Default: `gone`. */
  readonly halfClose?: "gone" | "stays" | undefined
  /** Asks clients for signs of life while their handler computes: see there. Default: none. */
  readonly heartbeat?: Heartbeat | undefined
  /** Is told of each request that reaches a route, before its handler. Each has its record later. */
  readonly onStart?: ((request: EdgeRequest) => Effect.Effect<unknown>) | undefined
  /** Receives the record of each request. */
  readonly onRecord?: ((record: EdgeRecord) => Effect.Effect<unknown>) | undefined
  /** Whether each record is a line in the log, at info, in place of the one of Effect's own logger. Default: true. */
  readonly accessLog?: boolean | undefined
  /** What a request is called. Default: `http-1` and so on. */
  readonly requestId?: ((request: HttpServerRequest.HttpServerRequest) => string) | undefined
  /** A use of the request after its end: a defect in tests, counted in production, or nothing. Default: `count`. */
  readonly afterEnd?: "die" | "count" | "ignore" | undefined
}

/**
 * A route behind an edge. `expectSwept` of `@curfew/testing` takes it as it is.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface EdgeRoute {
  /** `GET /orders/:id`. */
  readonly name: string
  readonly method: HttpMethod.HttpMethod | "*"
  readonly path: string
  readonly prefix: string | undefined
  /** `default`: what `DefaultOnDisconnect` says. */
  readonly onDisconnect: OnDisconnect | "default"
  readonly streams: OnDisconnect | "default"
  /** Its client's leaving interrupts it: at once, or after a grace. */
  readonly cancellable: boolean
}

/**
 * Puts all routes of a layer behind an edge: each request runs under a policy, has one record, and is answered with the
 * reason for which it was cancelled.
 *
 * **Guarantees**
 *
 * - **Shielded unless marked (L39)**: an unmarked handler runs to its end under the {@link Owner} when its client
 *   leaves; its answer is dropped and counted, and a shutdown waits for it. `cancellable` is interrupted with
 *   `ClientGone` and its guards run. Middleware of a route is part of its handler.
 * - **Streams stop (L39)**: a response stream without a mark is interrupted when its client leaves, and its finalizers
 *   run. No stream waits for a client that left (L41).
 * - **After an answer nothing is cancelled (L40)**.
 * - **One record (L37)**: for each request that reaches a route, when it is answered and nobody works on it any more.
 * - **One status for each reason (L48)**: 499 in the record of a client that left, 504 for a deadline, 503 for a
 *   shutdown.
 *
 * **When cancelled**
 *
 * The end of the server interrupts the requests: handlers are cancelled with `Shutdown` whatever their mark, and waited
 * for within the `CleanupBudget`.
 *
 * **Gotchas**
 *
 * Mark last, and give the marked value to `HttpRouter.add`. `HttpRouter.route` makes a new effect of a function and
 * loses its mark: mark an effect there, or name the route in `routes`. Global middleware stands outside, and is not
 * interrupted. A body that is no `Stream` is written by the server, whatever the policy.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as HttpRouter from "effect/http/HttpRouter"
 * import * as HttpServerResponse from "effect/http/HttpServerResponse"
 * import * as Layer from "effect/Layer"
 * import { HttpEdge } from "@curfew/http"
 * import { cancellable } from "@curfew/request"
 * import { Owner } from "@curfew/scope"
 *
 * const found = Effect.succeed(HttpServerResponse.text("found"))
 * const routes = Layer.mergeAll(
 *   HttpRouter.add("GET", "/search", cancellable(found)),
 *   HttpRouter.add("POST", "/orders", found)
 * )
 * const log: Array<string> = []
 * const app = HttpEdge.edge({
 *   accessLog: false,
 *   onRecord: ({ route, status }) => Effect.sync(() => log.push(`${route} ${status}`))
 * })(routes)
 *
 * const services = Owner.layer()
 * const { dispose, handler } = HttpRouter.toWebHandler(Layer.provide(app, services), { disableLogger: true })
 * const answer = await handler(new Request("http://localhost/search"))
 * await answer.text() // => "found"
 * log // => ["GET /search 200"]
 * await dispose()
 * ```
 *
 * @see EdgeServer for a listening server that stops in stages.
 * @stability unstable
 * @since 0.1.0
 */
export const edge = (
  options: EdgeOptions = {}
): (<A, E, R>(routes: Layer.Layer<A, E, R>) => Layer.Layer<A, E, R | HttpRouter.HttpRouter | Owner>) => {
  checkOptions(options)
  return (routes) =>
    Layer.provide(
      routes,
      Layer.effect(
        HttpRouter.HttpRouter,
        Effect.gen(function* () {
          return edgeOf(yield* HttpRouter.HttpRouter, yield* Owner, options, yield* Effect.context<never>())
        })
      )
    ) as never
}

/**
 * The routes of a layer that stand behind an edge, with their policies: for `expectSwept`, and for a look at what is
 * marked.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as HttpRouter from "effect/http/HttpRouter"
 * import * as HttpServerResponse from "effect/http/HttpServerResponse"
 * import { HttpEdge } from "@curfew/http"
 * import { cancellable } from "@curfew/request"
 * import { Owner } from "@curfew/scope"
 *
 * const search = HttpRouter.add("GET", "/search", cancellable(Effect.succeed(HttpServerResponse.text("found"))))
 * const program = Effect.provide(HttpEdge.routesOf(HttpEdge.edge()(search)), Owner.layer())
 * const routes = await Effect.runPromise(Effect.scoped(program))
 * routes.map(({ name, cancellable }) => [name, cancellable]) // => [["GET /search", true]]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const routesOf = <A, E, R>(
  app: Layer.Layer<A, E, R>
): Effect.Effect<
  ReadonlyArray<EdgeRoute>,
  HttpRouter.Request.Without<E>,
  Exclude<HttpRouter.Request.Without<R>, HttpRouter.HttpRouter> | Owner | Scope.Scope
> =>
  Effect.gen(function* () {
    const found: Array<EdgeRoute> = []
    const owner = yield* Owner
    const listing = Layer.effect(
      HttpRouter.HttpRouter,
      Effect.map(HttpRouter.make, (router) =>
        edgeOf(router, owner, {}, Context.empty(), (route) => found.push(route))
      )
    )
    yield* Layer.build(Layer.provide(app as Layer.Layer<A, E, never>, listing))
    return found
  }) as never
