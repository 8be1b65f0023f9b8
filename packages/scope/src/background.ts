import { gaugeLike, seriesOf } from "@curfew/reason/seriesOf"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { withoutCaller } from "./Caller.ts"
import { type Owner, ownerOfUnsafe } from "./Owner.ts"
import type { Task } from "./Task.ts"
import * as TaskScope from "./TaskScope.ts"

/**
 * How many background tasks run, by the attribute `name`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const backgroundActive: Metric.Gauge<number> = /* @__PURE__ */ Metric.gauge(
  "curfew_background_active",
  {
    description: "Background tasks that run now."
  }
)

/**
 * How often work that should have been handed to an owner ran attached to its caller, because the owner was closed.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const ownerClosedTotal: Metric.Counter<number> = /* @__PURE__ */ Metric.counter(
  "curfew_owner_closed_total",
  {
    description: "Work that ran attached to its caller because its owner was closed.",
    incremental: true
  }
)

/**
 * Starts work that outlives its caller, under an owner that answers for it.
 *
 * **Guarantees**
 *
 * - **Nothing of the caller's (L36)**: the work sees neither the caller's `Scope` (it gets one of its own), nor its
 *   span as parent, nor its log annotations, nor its reason, nor its deadline.
 * - **Linked both ways (L36)**: its span links to the caller's, and the caller's to it.
 * - **Counted by name (L36)**: {@link backgroundActive}.
 * - **A closed owner takes no work (L46)**: then the work runs attached to its caller, to its end, and that is
 *   counted in {@link ownerClosedTotal}.
 *
 * **When cancelled**
 *
 * The caller's cancel does not reach the work; the owner's does. A failure nobody joins reaches {@link OnUnhandled}.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { background, Owner } from "@curfew/scope"
 *
 * const program = Effect.flatMap(background("warm the cache", Effect.succeed(3)), (task) => task.join)
 * await Effect.runPromise(Effect.provide(program, Owner.layer())) // => 3
 * ```
 *
 * @see TaskScope.spawn for work that ends with its scope.
 * @stability unstable
 * @since 0.1.0
 */
export const background = <A, E, R>(
  name: string,
  work: Effect.Effect<A, E, R>,
  options?: { readonly owner?: TaskScope.TaskScope | undefined }
): Effect.Effect<Task<A, E>, never, Exclude<R, Scope.Scope> | Owner> =>
  Effect.withFiber((fiber) => {
    const owner = options?.owner ?? ownerOfUnsafe(fiber.context)
    const active = activeOf(name)
    const own = Effect.scoped(
      Effect.withSpan(linkBack(fiber, counted(active, work)), name, {
        root: true,
        links:
          fiber.cache.span === undefined ? [] : [{ span: fiber.cache.span, attributes: { link: "caller" } }]
      })
    ) as Effect.Effect<A, E>
    const task = TaskScope.spawnUnsafe(owner, strip(fiber), own, { name })
    if (task !== undefined) return Effect.succeed(task)
    // A closed owner: the work runs here, to its end, in a task scope that ends with it.
    // Masked from the counting on: between the two an interrupt would drop work that nobody else has taken.
    return Effect.uninterruptible(
      Effect.andThen(
        Metric.update(ownerClosedTotal, 1),
        Effect.scoped(
          Effect.gen(function* () {
            const attached = yield* TaskScope.make({ name })
            const started = TaskScope.spawnUnsafe(attached, strip(fiber), own, { name }) as Task<A, E>
            yield* started.exit
            return started
          })
        )
      )
    )
  })

const activeOf = /* @__PURE__ */ seriesOf(/* @__PURE__ */ gaugeLike(backgroundActive), "name")

const counted = <A, E, R>(
  active: Metric.Metric<number, unknown>,
  work: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Metric.modify(active, 1),
    () => work,
    () => Metric.modify(active, -1)
  )

const linkBack = <A, E, R>(
  caller: Fiber.Fiber<unknown, unknown>,
  work: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const span = caller.cache.span
  if (span?._tag !== "Span") return work
  return Effect.withFiber((fiber) => {
    const own = fiber.cache.span
    if (own !== undefined) span.addLinks([{ span: own, attributes: { link: "background" } }])
    return work
  })
}

/** The caller's services without what belongs to the caller's request. */
const strip = (fiber: Fiber.Fiber<unknown, unknown>): Context.Context<never> => {
  const services = Context.omit(
    Scope.Scope,
    Tracer.ParentSpan
  )(withoutCaller(fiber, fiber.context) as Context.Context<Scope.Scope>)
  return services.pipe(
    Context.add(References.CurrentLogAnnotations, {}),
    Context.add(References.CurrentLogSpans, [])
  ) as Context.Context<never>
}
