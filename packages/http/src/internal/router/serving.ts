/**
 * The whole life of one request on a route: its handler under the policy, its answer, its record.
 *
 * Invariants
 * 1. Each request that reaches a route has one record, whatever becomes of it: the first thing registered with its
 *    scope is what makes the record, so it runs last. Where nobody is given the record, see `QuickCall`.
 * 2. A request of node has the handler's fiber beside its own and no other; what that cannot serve has an edge that
 *    waits: what came otherwise, upgrades, heartbeats, and what something stands against from the beginning.
 */
import { RequestContext } from "@curfew/request"
import { Instant, type TaskScope } from "@curfew/scope"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Scope from "effect/Scope"
import type { EdgeOptions } from "../../HttpEdge.ts"
import type { Deadlines } from "../deadlines.ts"
import type { Response } from "./answering.ts"
import { attached } from "./attached.ts"
import { Exchange } from "./exchange.ts"
import { logRecord, threw } from "./logging.ts"
import { type Holder, hold, release } from "./places.ts"
import { QuickCall, quickly } from "./quick.ts"
import type { RouteSettings } from "./settings.ts"
import { watch } from "./watching.ts"

/** A route as its edge serves it. */
export interface Served {
  readonly name: string
  readonly settings: RouteSettings
  readonly options: EdgeOptions
  readonly owner: TaskScope.TaskScope
  readonly nextId: () => string
  readonly deadlines: Deadlines
  /** The route with its middleware. */
  readonly app: Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, never>
}

/** To be run masked, in the fiber of the request. */
export const serve = (served: Served): Effect.Effect<Response, unknown> =>
  Effect.withFiber((fiber) => {
    const { name, options } = served
    const request = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
    const { id, naming } = idOf(served, request)
    const quick = quickly(served, fiber, request)
    if (quick !== undefined) return new QuickCall(served, id, fiber, request, quick).run(naming)
    const client = watch(request, served.settings.watch)
    const exchange = new Exchange(id, name, request, client, fiber.context)
    exchange.begin()
    let made: RequestContext.RequestContext | undefined
    const holder: Holder = {
      stop: client.peer.stopUnsafe,
      abandon: Effect.suspend(() => (made === undefined ? Effect.void : abandoned(exchange, made)))
    }
    hold(request.source, holder)
    const record: RequestContext.RequestOptions = {
      id,
      name,
      afterEnd: options.afterEnd,
      onEnd: (base) => {
        release(request.source, holder)
        return tellRecord(options, exchange, base)
      }
    }
    return Effect.flatMap(RequestContext.make(record), (context) => {
      made = context
      return Effect.andThen(
        Scope.addFinalizerExit(Context.getUnsafe(fiber.context, Scope.Scope), () => over(exchange, context)),
        Effect.andThen(
          Effect.andThen(naming, begun(options, exchange)),
          attached(served, exchange, context, Instant.nowUnsafe(fiber))
        )
      )
    })
  })

/** Waits for the transport, and then nothing holds the request any more but those who took hold of it. */
export const over = (exchange: Exchange, context: RequestContext.RequestContext): Effect.Effect<void> =>
  Effect.andThen(
    exchange.client.delivered,
    Effect.suspend(() => {
      exchange.settle()
      return context.finish
    })
  )

/** The server has ended without it. */
export const abandoned = (
  exchange: Exchange,
  { abandon, users }: RequestContext.RequestContext
): Effect.Effect<void> =>
  Effect.flatMap(users, (count) => {
    // What nobody works on any more waits for its last bytes, and its connection has just been broken off.
    if (count === 0) return Effect.void
    exchange.abandoned = true
    return abandon
  })

/** Whether somebody is given the records. */
export const recorded = ({ accessLog, onRecord }: EdgeOptions): boolean =>
  accessLog !== false || onRecord !== undefined

export const tellRecord = (
  { accessLog, onRecord }: EdgeOptions,
  exchange: Exchange,
  base: RequestContext.RequestRecord
): Effect.Effect<unknown> => {
  const told = exchange.end(base)
  if (accessLog === false) return onRecord === undefined ? Effect.void : onRecord(told)
  return Effect.andThen(logRecord(told), onRecord?.(told) ?? Effect.void)
}

/** Tells the program that a request starts, whatever it makes of that. */
export const begun = ({ onStart }: EdgeOptions, exchange: Exchange): Effect.Effect<unknown> =>
  onStart === undefined
    ? Effect.void
    : Effect.catchCause(
        Effect.suspend(() => onStart(exchange.known)),
        (cause) => Effect.logError("onStart failed. Catch what it may fail with.", cause)
      )

/** What a request is called, whatever the program's function does. */
const idOf = (
  { nextId, options }: Served,
  request: HttpServerRequest.HttpServerRequest
): { readonly id: string; readonly naming: Effect.Effect<void> } => {
  // One line a request: this record takes the place of Effect's own.
  const alone: Effect.Effect<void> =
    options.accessLog === false
      ? Effect.void
      : (HttpMiddleware.withLoggerDisabled(Effect.void) as Effect.Effect<void>)
  try {
    return { id: options.requestId?.(request) ?? nextId(), naming: alone }
  } catch (error) {
    return { id: nextId(), naming: Effect.andThen(alone, threw("requestId", error)) }
  }
}
