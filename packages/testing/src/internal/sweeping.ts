/**
 * The order of the trials of a sweep.
 *
 * Invariants
 * 1. The step at which a run is cancelled goes up by one from trial to trial until a run ends without having reached
 *    it: that run was not cancelled, and every place before it was.
 * 2. With fresh state each trial has a stage of its own. With kept state the trials follow each other on one stage,
 *    which is replaced only when it broke.
 * 3. Two cancels need a number of runs that grows with the square of the steps. When they are more than `maxRuns`,
 *    both places move in strides, and the report says that it is not complete.
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Finding } from "../Finding.ts"
import type { Subject } from "../Subject.ts"
import type { AnyFiber } from "./fibers.ts"
import type { Capture } from "./position.ts"
import type { Broken } from "./registry.ts"
import { open, type Stage, type StageOptions } from "./stage.ts"
import { type Baseline, limited, measure, type Plan, type Trial, trial, withoutKnown } from "./trial.ts"

// Runs by which the length of a clean-up is judged.
const samples = 16

type Mode = "root" | "any" | "twice" | "finalizers"
type State = "fresh" | "kept"

/** A finding before its position is put into words. */
export interface Raw {
  readonly broken: Broken
  readonly mode: Finding["mode"]
  readonly state: State
  readonly plan: Plan | undefined
  readonly hit: Capture | undefined
  readonly waiting: ReadonlyArray<Capture>
}

export interface Sweeping<E2> {
  readonly subject: Subject<unknown, unknown, unknown, E2, unknown>
  readonly context: Context.Context<never>
  readonly stage: StageOptions
  readonly modes: ReadonlyArray<Mode>
  readonly states: ReadonlyArray<State>
  readonly maxRuns: number
  readonly maxSteps: number
  readonly cancel: (fiber: AnyFiber) => void
  readonly onTrial: (mode: Mode, state: State, step: number, of: number) => void
}

export interface Swept {
  readonly baseline: Baseline
  readonly raw: ReadonlyArray<Raw>
  readonly runs: number
  readonly complete: boolean
}

export const sweeping = <E2>(self: Sweeping<E2>): Effect.Effect<Swept, E2> =>
  Effect.gen(function* () {
    const raw: Array<Raw> = []
    let runs = 1
    let complete = true
    const first: Stage = yield* open(self.subject, self.context, self.stage)
    const baseline = yield* measure(first)
    for (const broken of baseline.broken) {
      raw.push({
        broken,
        mode: "none",
        state: "fresh",
        plan: undefined,
        hit: undefined,
        waiting: first.stuck
      })
    }
    if (first.broken) return { baseline, raw, runs, complete: false }
    const options = limited(self.stage, baseline, first.world.live)
    const fresh = open(self.subject, self.context, options)

    const add = (
      stage: Stage,
      mode: Mode,
      state: State,
      plan: Plan,
      hit: Capture | undefined,
      found: ReadonlyArray<Broken>
    ): void => {
      for (const broken of found) raw.push({ broken, mode, state, plan, hit, waiting: stage.stuck })
    }

    /** What one cancel at a step breaks: a second cancel is not blamed for it. */
    const byOne = new Map<number, ReadonlyArray<Broken>>()
    /** How many places there are after one cancel at a step. */
    const lengths = new Map<number, number>()

    /** A trial on a stage of its own. */
    const alone = (mode: Mode, plan: Plan): Effect.Effect<Trial, E2> =>
      Effect.gen(function* () {
        runs++
        const stage = yield* fresh
        const tried = yield* trial(stage, plan, baseline, self.cancel)
        const left = withoutKnown(yield* stage.close, baseline.broken)
        const broken = [...tried.broken, ...left]
        if (mode === "root") {
          byOne.set(plan.at, broken)
          lengths.set(plan.at, Math.max(0, tried.steps - plan.at))
        }
        const blamed = plan.second === undefined ? broken : withoutKnown(broken, byOne.get(plan.at) ?? [])
        add(stage, mode, "fresh", plan, tried.hit, blamed)
        return tried
      })

    /** How many runs two cancels take, judged by the runs with one: by some, where those are still to be done. */
    const estimated: Effect.Effect<number, E2> = Effect.gen(function* () {
      const apart = Math.max(1, Math.floor(baseline.steps / samples))
      for (let at = 1; at <= baseline.steps; at += apart) {
        if (lengths.has(at)) continue
        runs++
        const stage = yield* fresh
        const { steps } = yield* trial(stage, { at, victim: "root" }, baseline, self.cancel)
        lengths.set(at, Math.max(0, steps - at))
        yield* stage.close
      }
      const places = [...lengths.values()].reduce((sum, length) => sum + length + 1, 0)
      return (places / Math.max(1, lengths.size)) * baseline.steps
    })

    for (const mode of self.modes) {
      const single = mode === "root" || mode === "any"
      if (single && self.states.includes("fresh")) {
        for (let at = 1; ; at++) {
          if (at > self.maxSteps) {
            complete = false
            break
          }
          if (mode === "any" && (baseline.root[at - 1] ?? false)) continue
          self.onTrial(mode, "fresh", at, baseline.steps)
          const { sent } = yield* alone(mode, { at, victim: mode === "any" ? "running" : "root" })
          if (sent === 0) break
        }
      }
      if (single && self.states.includes("kept")) {
        let stage: Stage = yield* fresh
        for (let at = 1; ; at++) {
          if (at > self.maxSteps) {
            complete = false
            break
          }
          runs++
          self.onTrial(mode, "kept", at, baseline.steps)
          const plan: Plan = { at, victim: mode === "any" ? "running" : "root" }
          const tried = yield* trial(stage, plan, baseline, self.cancel)
          add(stage, mode, "kept", plan, tried.hit, tried.broken)
          if (tried.sent === 0) break
          if (stage.broken) stage = yield* fresh
          else stage.world.fibers.prune()
        }
        const left = yield* stage.close
        // Which of the runs left it is not known; fresh state tells, where that finds it too.
        for (const broken of withoutKnown(left, [...baseline.broken, ...raw.map((one) => one.broken)])) {
          raw.push({ broken, mode, state: "kept", plan: undefined, hit: undefined, waiting: stage.stuck })
        }
      }
      if (!single && self.states.includes("fresh")) {
        const estimate = yield* estimated
        const stride = Math.max(1, Math.ceil(Math.sqrt(estimate / self.maxRuns)))
        if (stride > 1) complete = false
        const victim = mode === "twice" ? "root" : "running"
        for (let at = 1; at <= self.maxSteps; at += stride) {
          self.onTrial(mode, "fresh", at, baseline.steps)
          let sent = 0
          // The remainder moves with the first place, so that strides do not miss the same places every time.
          for (let after = 1 + (at % stride); after <= self.maxSteps; after += stride) {
            const tried = yield* alone(mode, { at, victim: "root", second: { after, victim } })
            sent = tried.sent
            if (sent < 2) break
          }
          if (sent === 0) break
        }
      }
    }
    return { baseline, raw, runs, complete }
  })
