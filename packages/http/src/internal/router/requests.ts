/**
 * What the two ways to serve a request have in common: its beginning, its end, and what is told of them.
 *
 * Invariants
 * 1. A function of the program's that throws or fails here changes nothing for the request.
 */
import type { RequestContext } from "@curfew/request"
import type { TaskScope } from "@curfew/scope"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import type { EdgeOptions } from "../../HttpEdge.ts"
import type { Deadlines } from "../deadlines.ts"
import type { Exchange } from "./exchange.ts"
import { logRecord, threw } from "./logging.ts"
import type { RouteSettings } from "./settings.ts"

/** A route as its edge serves it. */
export interface Served {
  readonly name: string
  readonly settings: RouteSettings
  readonly options: EdgeOptions
  readonly owner: TaskScope.TaskScope
  readonly nextId: () => string
  readonly deadlines: Deadlines
  /** Where the edge was made: its requests count there. */
  readonly context: Context.Context<never>
  /** The route with its middleware. */
  readonly app: Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, never>
}

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
export const idOf = (
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
