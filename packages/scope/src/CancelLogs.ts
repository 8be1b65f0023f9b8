import { attributes } from "@curfew/reason"
import { CurrentCell } from "@curfew/reason/CancelCell"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"

/**
 * A logger that says in each line of work that is being cancelled why it is, in front of the one that is given.
 *
 * **Guarantees**
 *
 * - **Wherever it is logged**: in finalizers and masks of a cancelled scope or task, in what they fork, and in guards.
 * - **The line's own wins**: an annotation of the same name stays.
 * - **Nothing else**: lines of work that is not being cancelled are passed on as they are.
 *
 * **Example**
 *
 * ```ts
 * import { CancelReason } from "@curfew/reason"
 * import { CancelLogs, CancelScope } from "@curfew/scope"
 * import * as Effect from "effect/Effect"
 * import * as Logger from "effect/Logger"
 * import * as References from "effect/References"
 *
 * const seen: Array<unknown> = []
 * const memory = Logger.make(({ fiber }) => {
 *   seen.push(fiber.getRef(References.CurrentLogAnnotations)["curfew.cancel.reason"])
 * })
 * const program = CancelScope.run((scope) =>
 *   Effect.ensuring(Effect.andThen(scope.cancel(CancelReason.Superseded()), Effect.never), Effect.log("closing"))
 * )
 * Effect.runSync(Effect.provide(program, Logger.layer([CancelLogs.annotating(memory)])))
 * seen // => ["Superseded"]
 * ```
 *
 * @see layer for every logger of the program.
 * @stability unstable
 * @since 0.1.0
 */
export const annotating = <Message, Output>(
  logger: Logger.Logger<Message, Output>
): Logger.Logger<Message, Output> =>
  Logger.make((options) => {
    const { fiber } = options
    const reason = fiber.getRef(CurrentCell)?.reason
    return reason === undefined
      ? logger.log(options)
      : logger.log({ ...options, fiber: annotated(fiber, attributes(reason)) })
  })

/**
 * Puts {@link annotating} in front of every logger of the program.
 *
 * **Gotchas**
 *
 * It wraps the loggers that it finds: provide `Logger.layer` to it, or around it.
 *
 * **Example**
 *
 * ```ts
 * import { CancelLogs } from "@curfew/scope"
 * import * as Effect from "effect/Effect"
 *
 * Effect.runSync(Effect.provide(Effect.succeed(1), CancelLogs.layer)) // => 1
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const layer: Layer.Layer<never> = /* @__PURE__ */ Layer.effect(
  Logger.CurrentLoggers,
  /* @__PURE__ */ Effect.map(Logger.CurrentLoggers, (loggers) => new Set([...loggers].map(annotating)))
)

/** The fiber as the logger reads it, with more annotations; the fiber itself is left alone. */
const annotated = (
  fiber: Fiber.Fiber<unknown, unknown>,
  more: Readonly<Record<string, unknown>>
): Fiber.Fiber<unknown, unknown> => {
  const annotations = { ...more, ...fiber.getRef(References.CurrentLogAnnotations) }
  const context = Context.add(fiber.context, References.CurrentLogAnnotations, annotations)
  return Object.create(fiber, { context: { value: context } }) as Fiber.Fiber<unknown, unknown>
}
