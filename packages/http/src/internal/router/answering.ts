/**
 * What an edge makes of the end of a handler.
 *
 * Invariants
 * 1. What was cancelled is answered with its reason; what nobody is there for is put away.
 * 2. Nothing that a client does by leaving is logged above debug.
 */
import { CancelReason, currentReason, describe, fromCause } from "@curfew/reason"
import { interruptsOfUnsafe } from "@curfew/reason/CancelCell"
import { type RequestContext, statusOf, statusOfAnswer } from "@curfew/request"
import type * as Endpoint from "@curfew/request/Endpoint"
import { failureOf, reportUnhandled } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as HttpServerError from "effect/http/HttpServerError"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Option from "effect/Option"
import { httpStatus } from "../answers.ts"
import type { Deadline } from "./deadline.ts"
import { type Exchange, shutdown } from "./exchange.ts"
import { logFailure } from "./logging.ts"
import type { Served } from "./requests.ts"
import { streaming } from "./streaming.ts"

export type Response = HttpServerResponse.HttpServerResponse

/** What an interrupt of the request's fiber means. */
export const classify = (exchange: Exchange, cause: Cause.Cause<never>): CancelReason => {
  const byClient = cause.reasons.some(
    (reason) => reason._tag === "Interrupt" && reason.annotations.has(HttpServerError.ClientAbort.key)
  )
  if (!byClient) return shutdown
  return exchange.client.left()
}

/** The same of an interrupt that has come to the request's fiber: what it says itself, or its server does. */
export const meantBy = (
  fiber: Fiber.Fiber<unknown, unknown>,
  exchange: Exchange
): Effect.Effect<CancelReason> =>
  Effect.map(currentReason, (above) => {
    const cause = interruptsOfUnsafe(fiber)
    const told = cause === undefined ? above : Option.orElse(fromCause(cause), () => above)
    const says = Option.getOrUndefined(Option.filter(told, ({ _tag }) => _tag !== "Unknown"))
    return says ?? (cause === undefined ? CancelReason.Unknown() : classify(exchange, cause))
  })

export const answered = (exchange: Exchange, response: Response): Effect.Effect<Response> => {
  exchange.answering(response, "answered")
  return Effect.succeed(response)
}

export const respond = (
  exchange: Exchange,
  told: Endpoint.Answer<Response, unknown>,
  streamed: (response: Response) => Response
): Effect.Effect<Response, unknown> => {
  switch (told._tag) {
    case "Value": {
      const withoutBody = exchange.request.method === "HEAD"
      const omits = HttpServerResponse.omitsBody(told.value, withoutBody)
      return answered(exchange, omits ? told.value : streamed(told.value))
    }
    case "Failure": {
      const status = statusOfAnswer(told)?.http
      // What the program answers itself, Effect makes a response of.
      if (status === undefined) {
        exchange.failed()
        return Effect.andThen(logFailure(exchange.route, told.cause), Effect.failCause(told.cause))
      }
      const response = HttpServerResponse.text("The handler was interrupted by somebody else.", { status })
      exchange.answering(response, "failed")
      return Effect.as(Effect.logError(`${exchange.route} was interrupted by somebody else.`), response)
    }
    case "Cancelled": {
      exchange.cancelled(told.reason)
      const response = HttpServerResponse.text(`${describe(told.reason)}\n`, {
        status: httpStatus(told.reason),
        // Of a connection that is to end anyway its client should not hope for more.
        headers: told.reason._tag === "Shutdown" ? { connection: "close" } : {}
      })
      exchange.answering(response, "cancelled")
      return Effect.as(Effect.annotateCurrentSpan("curfew.cancel.reason", told.reason._tag), response)
    }
    case "Dropped":
      exchange.left(told.reason)
      return Effect.as(
        Effect.annotateCurrentSpan("curfew.cancel.reason", told.reason._tag),
        HttpServerResponse.empty({ status: statusOf(told.reason).http })
      )
  }
}

/** The response with its stream, if it has one, as a call of its own. */
export const streamed = (
  { name, owner, settings }: Served,
  exchange: Exchange,
  context: RequestContext.RequestContext,
  deadline: Deadline,
  response: Response
): Response => {
  const { client } = exchange
  return streaming(response, exchange, {
    method: name,
    transport: client.transport,
    peer: client.peer,
    owner,
    // The writer's end is the client's leaving, or the server's end.
    classify: (cause) => (exchange.gone ? client.left() : classify(exchange, cause)),
    context,
    policy: settings.streamPolicy,
    deadline
  })
}

/** An answer that nobody is there for. */
export const dropped = (exchange: Exchange, exit: Exit.Exit<Response, unknown>): Effect.Effect<void> => {
  if (exit._tag === "Success") {
    exchange.dropped = true
    return discard(exit.value)
  }
  const failure = failureOf(exit.cause)
  if (failure === undefined) return Effect.void
  exchange.dropped = true
  return Cause.hasDies(failure) && !diesOfAnswer(failure)
    ? reportUnhandled("abandoned work", exchange.route, failure)
    : Effect.logDebug(`Nobody was there for the failure of ${exchange.route}.`, failure)
}

/** A defect that is a response is a way to answer. */
const diesOfAnswer = (cause: Cause.Cause<unknown>): boolean =>
  cause.reasons.every(
    (reason) => reason._tag !== "Die" || HttpServerResponse.isHttpServerResponse(reason.defect)
  )

/** A body that holds on to something until it is read. */
const discard = ({ body }: Response): Effect.Effect<void> =>
  Effect.sync(() => {
    const raw = body._tag === "Raw" ? (body.body as { readonly destroy?: unknown } | null) : null
    if (raw !== null && typeof raw === "object" && typeof raw.destroy === "function") raw.destroy()
  })
