/**
 * The search for a schedule that breaks a program.
 *
 * Invariants
 * 1. Every schedule runs on a stage of its own.
 * 2. The search ends at the first schedule that breaks something.
 * 3. Shrinking keeps a candidate only when it breaks the same kind of thing, at the same probe.
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { FailingSchedule } from "../explore.ts"
import type { Finding } from "../Finding.ts"
import type { Subject } from "../Subject.ts"
import { type Decide, following, scheduleWith, seeded, successor, type Taken, trimmed } from "./decisions.ts"
import type { AnyFiber } from "./fibers.ts"
import { openLocator } from "./locate.ts"
import { capture, fiberName, positionOf } from "./position.ts"
import type { Broken } from "./registry.ts"
import { open, type StageOptions } from "./stage.ts"

export interface Exploring<E2> {
  readonly subject: Subject<unknown, unknown, unknown, E2, unknown>
  readonly context: Context.Context<never>
  readonly stage: StageOptions
  readonly mode: "random" | "exhaustive"
  readonly seed: number
  readonly schedules: number
  readonly preemption: boolean
  readonly preemptions: number
  readonly probability: number
}

interface Run {
  readonly taken: Taken
  readonly broken: ReadonlyArray<Broken>
}

/** One run under the given decisions. */
const run = <E2>(self: Exploring<E2>, decide: Decide, trace?: Array<string>): Effect.Effect<Run, E2> =>
  Effect.gen(function* () {
    const stage = yield* open(self.subject, self.context, self.stage)
    const taken = scheduleWith(stage.world, decide, self.preemption)
    const locator = trace === undefined ? undefined : openLocator()
    let last: AnyFiber | undefined
    if (trace !== undefined) {
      stage.world.onOperation = (primitive, fiber) => {
        const record = stage.world.fibers.recordOf(fiber)
        if (stage.world.phase !== "run" || fiber === last || record === undefined) return
        last = fiber
        const captured = capture(fiber, record, stage.world.steps)
        captured.operation = primitive
        const { operation, source } = positionOf(captured, locator?.locate ?? (() => undefined))
        trace.push(
          `step ${stage.world.steps}: ${fiberName(record)} at ${operation}${source === undefined ? "" : ` ${source}`}`
        )
      }
    }
    const ran = yield* stage.run("run", stage.program, () => false)
    const broken: Array<Broken> = [...ran.broken]
    if (ran.exit?._tag === "Failure" && ran.exit.cause.reasons.some(({ _tag }) => _tag === "Die")) {
      broken.push({ kind: "Defect", probe: undefined, message: "the run ended with a defect" })
    }
    broken.push(...(yield* stage.close))
    locator?.close()
    return { taken, broken }
  })

const without = (broken: ReadonlyArray<Broken>, wanted: Broken): boolean =>
  !broken.some(({ kind, probe }) => kind === wanted.kind && probe === wanted.probe)

/** Puts decisions back to their default as long as the same thing breaks: whole stretches first, then one by one. */
const shrink = <E2>(
  self: Exploring<E2>,
  found: ReadonlyArray<number>,
  wanted: Broken
): Effect.Effect<ReadonlyArray<number>, E2> =>
  Effect.gen(function* () {
    let best = trimmed(found)
    const breaks = (schedule: ReadonlyArray<number>) =>
      Effect.map(run(self, following(schedule)), ({ broken }) => !without(broken, wanted))
    for (let size = best.length; size >= 1; size = Math.floor(size / 2)) {
      for (let start = best.length - size; start > -size; start -= size) {
        const from = Math.max(0, start)
        if (best.slice(from, from + size).every((choice) => choice === 0)) continue
        const candidate = trimmed(best.map((choice, i) => (i >= from && i < from + size ? 0 : choice)))
        if (yield* breaks(candidate)) best = candidate
      }
    }
    for (let index = 0; index < best.length; index++) {
      for (let lower = 1; lower < (best[index] as number); lower++) {
        const candidate = best.map((choice, i) => (i === index ? lower : choice))
        if (yield* breaks(candidate)) best = candidate
      }
    }
    // Leaving a decision out moves the later ones forward, which is what makes a schedule short.
    for (let index = best.length - 1; index >= 0; index--) {
      const candidate = trimmed([...best.slice(0, index), ...best.slice(index + 1)])
      if (candidate.length < best.length && (yield* breaks(candidate))) best = candidate
    }
    return best
  })

const toFinding = (broken: Broken): Finding => ({
  ...broken,
  step: 0,
  second: undefined,
  mode: "schedule",
  state: "fresh",
  position: undefined,
  waiting: []
})

/** Runs one schedule, and tells what ran. */
export const runSchedule = <E2>(
  self: Exploring<E2>,
  by: { readonly seed: number } | { readonly schedule: ReadonlyArray<number> }
): Effect.Effect<FailingSchedule, E2> =>
  Effect.suspend(() => {
    const trace: Array<string> = []
    const decide = "seed" in by ? seeded(by.seed, self.probability) : following(by.schedule)
    return Effect.map(run(self, decide, trace), ({ broken, taken }) => ({
      seed: "seed" in by ? by.seed : undefined,
      schedule: trimmed(taken.taken),
      foundAt: taken.taken.length,
      findings: broken.map(toFinding),
      trace
    }))
  })

/** Runs schedules until one breaks something. */
export const exploring = <E2>(
  self: Exploring<E2>
): Effect.Effect<
  { readonly schedules: number; readonly complete: boolean; readonly failure: FailingSchedule | undefined },
  E2
> =>
  Effect.gen(function* () {
    let schedules = 0
    let schedule: ReadonlyArray<number> | undefined = []
    while (schedule !== undefined && schedules < self.schedules) {
      const seed = self.mode === "random" ? self.seed + schedules : undefined
      schedules++
      const decide = seed === undefined ? following(schedule) : seeded(seed, self.probability)
      const { broken, taken } = yield* run(self, decide)
      const [wanted] = broken
      if (wanted !== undefined) {
        const shortest = yield* shrink(self, taken.taken, wanted)
        const shown = yield* runSchedule(self, { schedule: shortest })
        const failure = { ...shown, seed, schedule: shortest, foundAt: trimmed(taken.taken).length }
        return { schedules, complete: false, failure }
      }
      if (self.mode === "exhaustive") schedule = successor(taken, self.preemptions)
    }
    return { schedules, complete: self.mode === "exhaustive" && schedule === undefined, failure: undefined }
  })
