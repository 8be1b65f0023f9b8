/**
 * What the options of an edge come to, for one route.
 *
 * Invariants
 * 1. Options are read when a route is added: what is wrong with them is thrown there, before there is a request.
 * 2. Of two edges around a route the inner one decides, field by field.
 * 3. The nearest setting wins: the route's by name, the handler's mark, the method's, the edge's default, and last
 *    `DefaultOnDisconnect`. What becomes of a response stream is said by the first two and by `streams` alone.
 */
import type { OnDisconnect } from "@curfew/request"
import { IllegalArgument } from "@curfew/scope"
import { millisUnsafe } from "@curfew/scope/Argument"
import type { EdgeOptions, RouteOptions } from "../../HttpEdge.ts"
import { clientDeadlineOf, type Resolved, resolve } from "../options.ts"

/** One route's share of the options. */
export interface RouteSettings {
  /** `undefined`: what `DefaultOnDisconnect` says. */
  readonly policy: OnDisconnect | undefined
  readonly streamPolicy: OnDisconnect | undefined
  /** Milliseconds; `Infinity` without a limit. */
  readonly deadline: number
  readonly clientDeadline: { readonly header: string; readonly max: number } | undefined
  readonly watch: Pick<Resolved, "body" | "bodyBytes" | "halfClose" | "heartbeat">
}

const check = (what: string, policy: OnDisconnect | undefined): OnDisconnect | undefined => {
  if (policy === undefined || policy === "cancel" || policy === "shield" || policy === "detach") return policy
  if (typeof policy === "object" && policy !== null && "grace" in policy) {
    millisUnsafe(`the grace of ${what}`, policy.grace)
    return policy
  }
  throw new IllegalArgument({
    argument: `the policy of ${what}`,
    value: policy,
    expected: '"cancel", "shield", "detach", or { grace: "30 seconds" }'
  })
}

const isRouteOptions = (u: OnDisconnect | RouteOptions): u is RouteOptions =>
  typeof u === "object" && u !== null && !("grace" in u)

export const merge = (outer: EdgeOptions, inner: EdgeOptions): EdgeOptions => ({
  ...outer,
  ...defined(inner),
  // A default says something for each method.
  methods: inner.default === undefined ? { ...outer.methods, ...inner.methods } : { ...inner.methods },
  routes: { ...outer.routes, ...inner.routes }
})

const defined = (options: EdgeOptions): EdgeOptions =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))

/** What is wrong with the options of an edge whatever its routes are. */
export const checkOptions = (options: EdgeOptions): void => {
  check("the edge", options.default)
  check("the edge's streams", options.streams)
  for (const [method, policy] of Object.entries(options.methods ?? {})) check(method, policy)
  for (const [name, given] of Object.entries(options.routes ?? {}))
    settingsOf(options, name, "", undefined, given)
  clientDeadlineOf(options.clientDeadline)
  resolve(undefined, watchOptions(options))
}

/** What both kinds of edges have, in the words of the one for node. */
const watchOptions = ({ body, bodyBytes, halfClose, heartbeat }: EdgeOptions) => ({
  body,
  bodyBytes,
  halfClose,
  heartbeat
})

export const settingsOf = (
  options: EdgeOptions,
  name: string,
  method: string,
  mark: OnDisconnect | undefined,
  given: OnDisconnect | RouteOptions | undefined = options.routes?.[name]
): RouteSettings => {
  const route: RouteOptions =
    given === undefined ? {} : isRouteOptions(given) ? given : { onDisconnect: given }
  const own = check(name, route.onDisconnect) ?? check(name, mark)
  const methods = options.methods as Readonly<Record<string, OnDisconnect | undefined>> | undefined
  const deadline = route.deadline ?? options.deadline
  return {
    policy: own ?? check(method, methods?.[method]) ?? check("the edge", options.default),
    streamPolicy: own ?? check("the edge's streams", options.streams),
    deadline:
      deadline === undefined ? Number.POSITIVE_INFINITY : millisUnsafe(`the deadline of ${name}`, deadline),
    clientDeadline: clientDeadlineOf(options.clientDeadline),
    watch: resolve(undefined, watchOptions(options))
  }
}
