/**
 * The whole life of one request on a route: its handler under the policy, its answer, its record.
 *
 * Invariants
 * 1. Each request that reaches a route has one record, whatever becomes of it: the first thing registered with its
 *    scope is what makes the record, so it runs last.
 * 2. The handler runs apart from the request's own fiber. An interrupt of that fiber is what the server says it is: the
 *    client's leaving, which follows the policy, or the server's end, which does not.
 * 3. What was cancelled is answered with its reason; what nobody is there for is put away.
 * 4. Nothing that a client does by leaving is logged above debug.
 */
import { type CancelReason, describe } from "@curfew/reason"
import { RequestContext, statusOf, statusOfAnswer } from "@curfew/request"
import * as Endpoint from "@curfew/request/Endpoint"
import { failureOf, Instant, reportUnhandled, type TaskScope } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpServerError from "effect/http/HttpServerError"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import type { EdgeOptions } from "../../HttpEdge.ts"
import { httpStatus, notATime } from "../answers.ts"
import { beating } from "../beating.ts"
import type { Deadlines } from "../deadlines.ts"
import { deadlineOf, earlier } from "./deadline.ts"
import { Exchange, shutdown } from "./exchange.ts"
import { logFailure, logRecord, threw } from "./logging.ts"
import { hold } from "./places.ts"
import type { RouteSettings } from "./settings.ts"
import { streaming } from "./streaming.ts"
import { upgrades, watch } from "./watching.ts"

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

type Response = HttpServerResponse.HttpServerResponse

/** To be run masked, in the fiber of the request. */
export const serve = (served: Served): Effect.Effect<Response, unknown> =>
  Effect.withFiber((fiber) => {
    const { name, options } = served
    const request = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
    const client = watch(request, served.settings.watch)
    const { id, naming } = idOf(served, request)
    const exchange = new Exchange(id, name, request, client, fiber.context)
    let made: RequestContext.RequestContext | undefined
    const leave = hold(request.source, {
      stop: client.peer.stopUnsafe,
      abandon: Effect.suspend(() => {
        if (made === undefined) return Effect.void
        const { abandon, users } = made
        return Effect.flatMap(users, (count) => {
          // What nobody works on any more waits for its last bytes, and its connection has just been broken off.
          if (count === 0) return Effect.void
          exchange.abandoned = true
          return abandon
        })
      })
    })
    const scope = Context.getUnsafe(fiber.context, Scope.Scope)
    const record: RequestContext.RequestOptions = {
      id,
      name,
      afterEnd: options.afterEnd,
      onEnd: (base) => {
        leave()
        const told = exchange.end(base)
        const { accessLog, onRecord } = options
        if (accessLog === false) return onRecord === undefined ? Effect.void : onRecord(told)
        return Effect.andThen(logRecord(told), onRecord?.(told) ?? Effect.void)
      }
    }
    return Effect.flatMap(RequestContext.make(record), (context) => {
      made = context
      return Effect.andThen(
        Scope.addFinalizerExit(scope, () =>
          Effect.andThen(
            client.delivered,
            Effect.suspend(() => {
              exchange.settle()
              return context.finish
            })
          )
        ),
        Effect.andThen(
          Effect.andThen(naming, begun(options, exchange)),
          answer(served, exchange, context, Instant.nowUnsafe(fiber))
        )
      )
    })
  })

/** Tells the program that a request starts, whatever it makes of that. */
const begun = ({ onStart }: EdgeOptions, { known }: Exchange): Effect.Effect<unknown> =>
  onStart === undefined
    ? Effect.void
    : Effect.catchCause(
        Effect.suspend(() => onStart(known)),
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

const answer = (
  served: Served,
  exchange: Exchange,
  context: RequestContext.RequestContext,
  now: Instant.Instant
): Effect.Effect<Response, unknown> => {
  const { name, owner, settings } = served
  const { client, request } = exchange
  const deadlines = deadlineOf(settings, request.headers, now)
  if (deadlines === "invalid") {
    const header = settings.clientDeadline?.header as string
    return answered(exchange, HttpServerResponse.text(notATime(header), { status: 400 }))
  }
  const { at, origin } = earlier(deadlines.local, deadlines.client)
  const upgrading = upgrades(request)
  const call = {
    method: name,
    transport: client.transport,
    peer: client.peer,
    owner,
    classify: (cause: Cause.Cause<never>) => classify(exchange, cause)
  }
  const labelled = inItsScope(served.app, context.id)
  const running = RequestContext.provide(context)(
    Endpoint.run(labelled, {
      ...call,
      kind: upgrading ? "stream" : "request",
      policy: upgrading ? settings.streamPolicy : settings.policy,
      deadline: at,
      deadlineOrigin: origin,
      timer: (until, fire) => served.deadlines.arm(Math.ceil(until - now), until, fire),
      onDropped: (exit) => dropped(exchange, exit)
    })
  ) as Effect.Effect<Endpoint.Answer<Response, unknown>>
  const watched = beating(client.beat, settings.watch.heartbeat, running)
  return Effect.flatMap(
    // A client that left before is a client that left: what its policy lets run, the interrupt does not keep from it.
    Effect.onExit(client.peer.state === "gone" ? running : Effect.interruptible(watched), (exit) =>
      Effect.sync(() => {
        if (exit._tag === "Failure" && !exchange.gone) exchange.cancelled(shutdown)
      })
    ),
    (told) =>
      respond(exchange, told, (response) =>
        streaming(response, exchange, {
          ...call,
          // The writer's end is the client's leaving, or the server's end.
          classify: (cause) => (exchange.gone ? exchange.client.left() : classify(exchange, cause)),
          context,
          policy: settings.streamPolicy,
          deadline: deadlines.client
        })
      )
  )
}

/**
 * Gives a handler a part of the request's `Scope`, which ends with the handler where that was interrupted: guards in it ask
 * the fiber that closes it, and the request's own was not cancelled. An answer keeps it open until it is out. Its log lines
 * and its span say which request it is.
 */
const inItsScope = <A, E>(app: Effect.Effect<A, E>, id: string): Effect.Effect<A, E> =>
  Effect.withFiber((fiber) => {
    const { context } = fiber
    const { span } = fiber.cache
    if (span?._tag === "Span") span.attribute("curfew.request.id", id)
    const scope = Scope.forkUnsafe(Context.getUnsafe(context as Context.Context<Scope.Scope>, Scope.Scope))
    const given = Context.add(Context.add(context, Scope.Scope, scope), References.CurrentLogAnnotations, {
      ...fiber.getRef(References.CurrentLogAnnotations),
      request: id
    })
    return Effect.onExitPrimitive(
      Effect.updateContext(app, () => given as Context.Context<never>),
      (exit) =>
        exit._tag === "Failure" && Cause.hasInterruptsOnly(exit.cause) ? Scope.close(scope, exit) : undefined
    )
  })

/** What an interrupt of the request's fiber means. */
const classify = (exchange: Exchange, cause: Cause.Cause<never>): CancelReason => {
  const byClient = cause.reasons.some(
    (reason) => reason._tag === "Interrupt" && reason.annotations.has(HttpServerError.ClientAbort.key)
  )
  if (!byClient) return shutdown
  return exchange.client.left()
}

const answered = (exchange: Exchange, response: Response): Effect.Effect<Response> => {
  exchange.answering(response, "answered")
  return Effect.succeed(response)
}

const respond = (
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

/** An answer that nobody is there for. */
const dropped = (exchange: Exchange, exit: Exit.Exit<Response, unknown>): Effect.Effect<void> => {
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
