import * as Data from "effect/Data"
import { swept } from "./internal/swept.ts"
import type { SweepReport } from "./SweepReport.ts"

/**
 * What `expectSwept` has to know of a route, an endpoint or a procedure.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface SweepableRoute {
  readonly name: string
  readonly cancellable: boolean
}

/**
 * Routes can be cancelled, and no sweep has shown that this does no harm.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class NotSwept extends /* @__PURE__ */ Data.TaggedError("NotSwept")<{
  readonly names: ReadonlyArray<string>
}> {
  /** One sentence. */
  override get message(): string {
    return `Marked cancellable, and covered by no sweep: ${this.names.join(", ")}.`
  }
}

/**
 * Routes can be cancelled, and the sweep that covers them has shown that this does harm.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class NotClean extends /* @__PURE__ */ Data.TaggedError("NotClean")<{
  readonly names: ReadonlyArray<string>
}> {
  /** One sentence. */
  override get message(): string {
    return `Marked cancellable, and broken by a cancel, as their sweeps have found: ${this.names.join(", ")}.`
  }
}

/**
 * The reports of the named sweeps that have ended in this process, by name.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const sweptReports = (): ReadonlyMap<string, SweepReport> => swept

/**
 * The names of the routes that are marked cancellable and that no sweep of that name has covered.
 *
 * **Example**
 *
 * ```ts
 * import { unswept } from "@curfew/testing"
 *
 * const routes = [{ name: "GET /orders", cancellable: true }, { name: "POST /pay", cancellable: false }]
 * unswept(routes) // => ["GET /orders"]
 * ```
 *
 * @see expectSwept to fail on them.
 * @stability unstable
 * @since 0.1.0
 */
export const unswept = (routes: Iterable<SweepableRoute>): ReadonlyArray<string> =>
  [...routes].filter(({ cancellable, name }) => cancellable && !swept.has(name)).map(({ name }) => name)

/**
 * The names of the routes that are marked cancellable and whose last sweep has found something.
 *
 * @see expectSwept to fail on them, with `clean`.
 * @stability unstable
 * @since 0.1.0
 */
export const unclean = (routes: Iterable<SweepableRoute>): ReadonlyArray<string> =>
  [...routes]
    .filter(({ cancellable, name }) => cancellable && swept.get(name)?.ok === false)
    .map(({ name }) => name)

/**
 * Throws {@link NotSwept} when a route is marked cancellable and no sweep has covered it: the last test of a suite
 * that sweeps its handlers.
 *
 * **Guarantees**
 *
 * - **By name**: a sweep covers the route that has the sweep's name.
 * - **Covered is not clean**: what a sweep found is the business of its own test, unless `clean` is asked for: then it
 *   throws {@link NotClean} when the last sweep of a route found something.
 *
 * **Gotchas**
 *
 * The names are those of this process: put the sweeps and this call in one test file, or run files without isolation.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { expectSwept, sweep } from "@curfew/testing"
 *
 * const routes = [
 *   { name: "GET /ping", cancellable: true, handler: Effect.succeed("pong") },
 *   { name: "POST /pay", cancellable: false, handler: Effect.void }
 * ]
 * for (const { handler, name } of routes) Effect.runSync(sweep(handler, { name }))
 * expectSwept(routes) // => undefined
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const expectSwept = (
  routes: Iterable<SweepableRoute>,
  options: {
    /** Whether the sweeps must have found nothing. Default: false. */
    readonly clean?: boolean | undefined
  } = {}
): void => {
  const all = [...routes]
  const names = unswept(all)
  if (names.length > 0) throw new NotSwept({ names })
  const broken = options.clean === true ? unclean(all) : []
  if (broken.length > 0) throw new NotClean({ names: broken })
}
