/**
 * Recording one run for a timeline.
 *
 * Invariants
 * 1. Recording changes nothing in the run: it takes the same steps as an unrecorded one.
 * 2. Places are asked for at the moment of the event, when generators still stand where they stood.
 * 3. At most `mostEvents` are kept; a run that is longer is cut at its end.
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Finding } from "../Finding.ts"
import type { Subject } from "../Subject.ts"
import type { Timeline, TimelineEvent } from "../Timeline.ts"
import { describeExit } from "./equal.ts"
import type { AnyFiber, FiberRecord } from "./fibers.ts"
import { type Locate, located, openLocator } from "./locate.ts"
import { capture, isMasked, positionOf } from "./position.ts"
import { open, type StageOptions } from "./stage.ts"
import { limited, measure, type Plan, trial, withoutKnown } from "./trial.ts"

const mostEvents = 3_000

const planOf = ({ mode, second, step }: Pick<Finding, "step" | "mode" | "second">): Plan => ({
  at: mode === "none" ? -1 : step,
  victim: mode === "any" ? "running" : "root",
  second:
    second === undefined ? undefined : { after: second, victim: mode === "finalizers" ? "running" : "root" }
})

/** The fibers of the setup stand together under 0. */
const numberOf = ({ index, phase }: FiberRecord): number => (phase === "run" ? index : 0)

type Recorded = Omit<Timeline, "name" | "finding">

export const record = <E2>(
  subject: Subject<unknown, unknown, unknown, E2, unknown>,
  context: Context.Context<never>,
  options: StageOptions,
  where: Pick<Finding, "step" | "mode" | "second">,
  cancel: (fiber: AnyFiber) => void
): Effect.Effect<Recorded, E2> =>
  Effect.gen(function* () {
    const first = yield* open(subject, context, options)
    const measured = yield* measure(first)
    const baseline = where.mode === "none" ? { ...measured, broken: [] } : measured
    const stage = yield* open(subject, context, limited(options, measured, first.world.live))
    const { registry, world } = stage
    const events: Array<TimelineEvent> = []
    const fibers = new Map<
      number,
      { parent: number | undefined; born: number; forkedAt: string | undefined }
    >()
    const started = world.clock.now
    let find: Locate = () => undefined

    const add = (event: Pick<TimelineEvent, "kind" | "what"> & Partial<TimelineEvent>): void => {
      if (world.phase !== "run" || events.length >= mostEvents) return
      events.push({
        step: world.steps,
        at: world.clock.now - started,
        fiber: 0,
        code: undefined,
        source: undefined,
        masked: false,
        probe: undefined,
        ...event
      })
    }
    const here = (fiber: AnyFiber, operation?: unknown) => {
      const at = world.fibers.recordOf(fiber)
      if (at === undefined) return undefined
      const captured = capture(fiber, at, world.steps)
      captured.operation = operation
      return positionOf(captured, find)
    }

    world.onOperation = (primitive, fiber) => {
      const at = world.fibers.recordOf(fiber)
      if (at === undefined || world.phase !== "run" || events.length >= mostEvents) return
      const position = here(fiber, primitive)
      add({
        kind: "operation",
        fiber: numberOf(at),
        what: position?.operation ?? "unknown",
        code: position?.code,
        source: position?.source,
        masked: isMasked(fiber)
      })
    }
    world.onFork = (born, parent) => {
      if (born.phase !== "run") return
      const forkedAt = parent === undefined ? undefined : here(parent)?.source
      const by = born.parent === undefined ? undefined : numberOf(born.parent)
      fibers.set(born.index, { parent: by, born: born.born, forkedAt })
      if (by !== undefined) add({ kind: "fork", fiber: by, what: `forks #${born.index}`, source: forkedAt })
    }
    world.onFirst = (born, fiber) => {
      if (born.phase !== "run") return
      fiber.addObserver((exit) => add({ kind: "end", fiber: born.index, what: describeExit(exit) }))
    }
    registry.onSeen = (seen) => {
      const fiber = Fiber.getCurrent()
      const at = fiber === undefined ? undefined : world.fibers.recordOf(fiber)
      add({
        kind: "probe",
        fiber: at === undefined ? 0 : numberOf(at),
        what: `${seen.what} ${seen.probe}`,
        probe: { name: seen.probe, what: seen.what, detail: seen.detail }
      })
    }
    const sent = (fiber: AnyFiber): void => {
      const at = world.fibers.recordOf(fiber)
      const number = at === undefined ? 0 : numberOf(at)
      add({ kind: "cancel", fiber: number, what: `cancels #${number}` })
      cancel(fiber)
    }
    const locator = openLocator()
    find = locator.locate
    const run = Effect.gen(function* () {
      const tried = yield* trial(stage, planOf(where), baseline, sent)
      const left =
        where.mode === "none" ? yield* stage.close : withoutKnown(yield* stage.close, baseline.broken)
      return { ...tried, broken: [...tried.broken, ...left] }
    })
    const tried = yield* Effect.onExit(run, () => Effect.sync(locator.close))
    const waiting = located(
      (locate) => new Map(stage.stuck.map((one) => [numberOf(one.record), positionOf(one, locate)]))
    )
    return {
      fibers: [...fibers].map(([index, fiber]) => {
        const position = waiting.get(index)
        return {
          index,
          ...fiber,
          left: position === undefined ? undefined : `${position.operation} ${position.source ?? ""}`.trim()
        }
      }),
      events,
      exit: tried.exit === undefined ? "did not end" : describeExit(tried.exit),
      broken: tried.broken.map(({ message }) => message)
    }
  })
