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
import { Instant } from "@curfew/scope"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Scope from "effect/Scope"
import type { Response } from "./answering.ts"
import { attached } from "./attached.ts"
import { Exchange } from "./exchange.ts"
import { type Holder, hold, release } from "./places.ts"
import { QuickCall } from "./quick.ts"
import { quickly } from "./quickly.ts"
import { abandoned, begun, idOf, over, type Served, tellRecord } from "./requests.ts"
import { watch } from "./watching.ts"

/** To be run masked, in the fiber of the request. */
export const serve = (served: Served): Effect.Effect<Response, unknown> =>
  Effect.withFiber((fiber) => {
    const { name, options } = served
    const request = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
    const { id, naming } = idOf(served, request)
    const quick = quickly(served, fiber, request)
    if (quick !== undefined) return new QuickCall(served, id, fiber, request, quick).run(naming)
    const client = watch(request, served.settings.watch)
    const exchange = new Exchange(id, name, request, client, served.context)
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
