/**
 * A handler whose edge waits beside it, in the fiber of the request.
 *
 * Invariants
 * 1. The handler runs apart from the request's own fiber. An interrupt of that fiber is what the server says it is: the
 *    client's leaving, which follows the policy, or the server's end, which does not.
 * 2. It has a part of the request's `Scope`.
 */
import { RequestContext } from "@curfew/request"
import * as Endpoint from "@curfew/request/Endpoint"
import type { Instant } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import { notATime } from "../answers.ts"
import { beating } from "../beating.ts"
import { answered, classify, dropped, type Response, respond, streamed } from "./answering.ts"
import { deadlineOf, earlier } from "./deadline.ts"
import { type Exchange, shutdown } from "./exchange.ts"
import type { Served } from "./requests.ts"
import { upgrades } from "./watching.ts"

/** Runs the handler, and says what to answer. To be run masked. */
export const attached = (
  served: Served,
  exchange: Exchange,
  context: RequestContext.RequestContext,
  now: Instant.Instant
): Effect.Effect<Response, unknown> => {
  const { name, owner, settings } = served
  const { client, request } = exchange
  const deadlines = deadlineOf(settings, request, now)
  if (deadlines === "invalid") {
    const header = settings.clientDeadline?.header as string
    return answered(exchange, HttpServerResponse.text(notATime(header), { status: 400 }))
  }
  const { at, origin } = earlier(deadlines.local, deadlines.client)
  const upgrading = upgrades(request)
  const labelled = inItsScope(served.app, context.id)
  const running = RequestContext.provide(context)(
    Endpoint.run(labelled, {
      method: name,
      transport: client.transport,
      peer: client.peer,
      owner,
      classify: (cause) => classify(exchange, cause),
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
      respond(exchange, told, (response) => streamed(served, exchange, context, deadlines.client, response))
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
