/**
 * A router that puts each route behind an edge.
 *
 * Invariants
 * 1. A route's middleware runs within its handler: what the policy says holds for both.
 * 2. A mark is read where it was set, before the router makes an effect of a function.
 * 3. An edge within an edge adds nothing of its own around a route: the options are merged, the innermost first.
 */
import { tellCancels } from "@curfew/reason"
import { type OnDisconnect, policyOf } from "@curfew/request"
import type { TaskScope } from "@curfew/scope"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Option from "effect/Option"
import type { EdgeOptions, EdgeRoute } from "../../HttpEdge.ts"
import { Deadlines } from "../deadlines.ts"
import { serve } from "./serving.ts"
import { merge, type RouteSettings, settingsOf } from "./settings.ts"

type Router = HttpRouter.HttpRouter
type Route = HttpRouter.Route<unknown, never>
type Handler = Parameters<Router["add"]>[2]

/** What all edges around a router share. */
interface Shared {
  /** The router itself, and not a view with a prefix. */
  readonly router: Router
  readonly owner: TaskScope.TaskScope
  readonly nextId: () => string
  readonly deadlines: Deadlines
  readonly context: Context.Context<never>
  readonly onRoute: (route: EdgeRoute) => void
}

const edged = /* @__PURE__ */ Symbol("@curfew/http/edged")

interface Edged extends Router {
  readonly [edged]?: { readonly shared: Shared; readonly options: EdgeOptions; readonly prefix: string }
}

export const edgeOf = (
  router: Router,
  owner: TaskScope.TaskScope,
  options: EdgeOptions,
  context: Context.Context<never>,
  onRoute: (route: EdgeRoute) => void = () => {}
): Router => {
  const around = (router as Edged)[edged]
  if (around !== undefined) {
    return view({ ...around.shared, owner }, merge(around.options, options), around.prefix)
  }
  // A server counts its cancels, also where a bundler left out what nobody mentions.
  tellCancels()
  let ids = 0
  const nextId = (): string => {
    ids++
    return `http-${ids}`
  }
  return view({ router, owner, nextId, deadlines: new Deadlines(context), context, onRoute }, options, "")
}

const view = (shared: Shared, options: EdgeOptions, prefix: string): Router => {
  const made: Edged = {
    ...shared.router,
    [edged]: { shared, options, prefix },
    prefixed: (further) => view(shared, options, HttpRouter.prefixPath(further, prefix)),
    add: (method, path, handler, more) => {
      const route = HttpRouter.route(method, path, handler as Handler, more) as Route
      return add(shared, options, prefix, route, markOf(handler)) as never
    },
    addAll: (routes) =>
      Effect.forEach(
        routes as unknown as ReadonlyArray<Route>,
        (route) => add(shared, options, prefix, route, markOf(route.handler)),
        { discard: true }
      ) as never
  }
  return made
}

const markOf = (handler: unknown): OnDisconnect | undefined =>
  typeof handler === "function" || Effect.isEffect(handler) ? policyOf(handler as never) : undefined

const add = (
  shared: Shared,
  options: EdgeOptions,
  prefix: string,
  given: Route,
  mark: OnDisconnect | undefined
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const route = prefix === "" ? given : HttpRouter.prefixRoute(given, prefix)
    const { method, path } = route
    const name = `${method} ${path}`
    const settings = settingsOf(options, name, method, mark)
    shared.onRoute(described(name, route, settings))
    if (method !== "GET" && method !== "HEAD" && interrupts(settings.policy)) {
      yield* Effect.logWarning(
        `${name} is interrupted when its client leaves, and it is no GET: make sure that it may stop halfway.`
      )
    }
    const app = yield* withMiddleware(route)
    const { context, deadlines, nextId, owner, router } = shared
    const handler = serve({
      name,
      settings,
      options,
      owner,
      nextId,
      deadlines,
      context,
      app: route.uninterruptible ? Effect.uninterruptible(app) : app
    })
    // Masked: a request whose client left before its handler starts has a policy and a record, too.
    const outside = HttpRouter.route(method, path, handler, { uninterruptible: true })
    const added = router.addAll([outside]) as Effect.Effect<void>
    yield* Effect.updateContext(added, (_: Context.Context<never>) => Context.empty())
  })

type App = Effect.Effect<HttpServerResponse.HttpServerResponse, unknown>

/**
 * A route with the middleware of its place, which only a router can see. A router of its own applies it, and would look
 * each request up once more: where there is none, and no prefix to be taken off a request, the handler is all of it.
 */
const withMiddleware = (route: Route): Effect.Effect<App> =>
  Effect.gen(function* () {
    let asked = false
    const watched = {
      ...route,
      get handler() {
        asked = true
        return route.handler
      }
    }
    const probe = yield* HttpRouter.make
    yield* probe.addAll([watched]) as Effect.Effect<void>
    if (!asked && Option.isNone(route.prefix)) return route.handler as App
    const alone = yield* HttpRouter.make
    yield* alone.addAll([route]) as Effect.Effect<void>
    return alone.asHttpEffect() as App
  })

const interrupts = (policy: OnDisconnect | undefined): boolean =>
  policy === "cancel" || typeof policy === "object"

const described = (name: string, route: Route, settings: RouteSettings): EdgeRoute => ({
  name,
  method: route.method,
  path: route.path,
  prefix: Option.getOrUndefined(route.prefix),
  onDisconnect: settings.policy ?? "default",
  streams: settings.streamPolicy ?? "default",
  cancellable: interrupts(settings.policy)
})
