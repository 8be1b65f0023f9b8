/**
 * A trial: one run of a subject that is cancelled at one place, the question afterwards, and what was broken.
 *
 * Invariants
 * 1. The cancel is sent at most once per place of the plan, and never after the root has ended.
 * 2. A victim that has ended meanwhile is not looked for elsewhere: that trial is a run without a cancel.
 * 3. What is broken without any cancel is not blamed on one.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { describeExit, sameExit } from "./equal.ts"
import type { AnyFiber } from "./fibers.ts"
import { behindYield, type Capture, capture } from "./position.ts"
import type { Broken } from "./registry.ts"
import type { Stage, StageOptions } from "./stage.ts"

type Victim = "root" | "running"

/** Where the cancels of one run are sent, and to whom. */
export interface Plan {
  readonly at: number
  readonly victim: Victim
  /** A second cancel, this many operations after the first. */
  readonly second?: { readonly after: number; readonly victim: Victim } | undefined
}

export interface Trial {
  readonly sent: number
  readonly steps: number
  readonly exit: Exit.Exit<unknown, unknown> | undefined
  readonly broken: ReadonlyArray<Broken>
  /** Where the last cancel hit. */
  readonly hit: Capture | undefined
}

/** What runs without a cancel give. */
export interface Baseline {
  readonly steps: number
  readonly answers: ReadonlyArray<Exit.Exit<unknown, unknown>>
  /** For each step from 1 on, whether the root was at it. */
  readonly root: ReadonlyArray<boolean>
  readonly broken: ReadonlyArray<Broken>
}

const keyOf = ({ kind, probe }: Broken): string => `${kind} ${probe ?? ""}`

/** The findings that are not there without a cancel. */
export const withoutKnown = (broken: ReadonlyArray<Broken>, known: ReadonlyArray<Broken>) => {
  const keys = new Set(known.map(keyOf))
  return broken.filter((one) => !keys.has(keyOf(one)))
}

export const hasDefect = (exit: Exit.Exit<unknown, unknown>): boolean =>
  exit._tag === "Failure" && Cause.hasDies(exit.cause)

/** Runs the program with the plan's cancels. */
const cancelAt = (
  stage: Stage,
  plan: Plan,
  cancel: (fiber: AnyFiber) => void
): Effect.Effect<
  Omit<Trial, "exit" | "broken"> & { readonly run: Effect.Success<ReturnType<Stage["run"]>> }
> =>
  Effect.suspend(() => {
    const { world } = stage
    const tell = world.onOperation
    let sent = 0
    let at = plan.at
    let hit: Capture | undefined
    const note = world.onStep
    world.onStep = (fiber, record) => {
      note?.(fiber, record)
      const root = world.root?.fiber
      if (world.steps !== at || root === undefined || root.pollUnsafe() !== undefined) return false
      const victim = (sent === 0 ? plan.victim : plan.second?.victim) === "running" ? fiber : root
      sent++
      if (plan.second !== undefined && sent === 1) at = world.steps + plan.second.after
      const captured = capture(fiber, record, world.steps)
      hit = captured
      world.onOperation = (primitive, current) => {
        world.onOperation = tell
        captured.operation = behindYield(primitive)
        tell?.(captured.operation, current)
      }
      world.soon(() => cancel(victim))
      return true
    }
    return Effect.map(
      stage.run("run", stage.program, () => sent > 0),
      (run) => {
        world.onStep = note
        world.onOperation = tell
        return { sent, steps: run.steps, hit, run }
      }
    )
  })

/** Asks what has to be right after a run: the questions of the probes, or the program itself once more. */
export const askAfter = (
  stage: Stage,
  answers: ReadonlyArray<Exit.Exit<unknown, unknown>>
): Effect.Effect<ReadonlyArray<Broken>> =>
  Effect.gen(function* () {
    const { questions } = stage.registry
    const broken: Array<Broken> = []
    if (questions.length === 0) {
      const again = yield* stage.run("after", stage.program, () => false)
      broken.push(
        ...again.broken.map((one) => ({ ...one, message: `in the run afterwards: ${one.message}` }))
      )
      if (again.exit !== undefined && !isRight(again.exit, answers)) {
        const message = `the run afterwards gave ${describeExit(again.exit)} in place of ${describeExit(
          answers[0] as Exit.Exit<unknown, unknown>
        )}`
        broken.push({ kind: "WrongAnswer", probe: undefined, message })
      }
    }
    for (const { ask, isRight, name } of questions) {
      if (stage.broken) break
      const asked = yield* stage.run("after", ask, () => false)
      broken.push(...asked.broken)
      const wrong = asked.exit === undefined ? undefined : isRight(asked.exit)
      if (wrong !== undefined) broken.push({ kind: "WrongAnswer", probe: name, message: wrong })
    }
    return broken
  })

const isRight = (
  exit: Exit.Exit<unknown, unknown>,
  answers: ReadonlyArray<Exit.Exit<unknown, unknown>>
): boolean => {
  if (answers.some((answer) => sameExit(answer, exit))) return true
  // Two runs without a cancel that differ: the answer depends on the state, and only the kind can be compared.
  const [first, second] = answers
  return (
    first !== undefined &&
    second !== undefined &&
    !sameExit(first, second) &&
    answers.some(({ _tag }) => _tag === exit._tag)
  )
}

/** The trial on a stage. Leaves it open, unless it broke. */
export const trial = (
  stage: Stage,
  plan: Plan,
  baseline: Baseline,
  cancel: (fiber: AnyFiber) => void
): Effect.Effect<Trial> =>
  Effect.gen(function* () {
    const { hit, run, sent, steps } = yield* cancelAt(stage, plan, cancel)
    const broken: Array<Broken> = [...run.broken]
    if (run.exit !== undefined && hasDefect(run.exit) && !baseline.answers.some(hasDefect)) {
      const message = `the cancelled run ended with ${describeExit(run.exit)}`
      broken.push({ kind: "Defect", probe: undefined, message })
    }
    if (!stage.broken && sent > 0) broken.push(...(yield* askAfter(stage, baseline.answers)))
    return { sent, steps, exit: run.exit, broken: withoutKnown(broken, baseline.broken), hit }
  })

/** What the subject does without any cancel, on a stage of its own. */
export const measure = (stage: Stage): Effect.Effect<Baseline> =>
  Effect.gen(function* () {
    const { world } = stage
    const root: Array<boolean> = []
    const note = world.onStep
    world.onStep = (fiber, record) => {
      note?.(fiber, record)
      root.push(record === world.root)
      return false
    }
    const first = yield* stage.run("run", stage.program, () => false)
    world.onStep = note
    const broken = [...first.broken]
    const answers = first.exit === undefined ? [] : [first.exit]
    if (!stage.broken) {
      const second = yield* stage.run("after", stage.program, () => false)
      if (second.exit !== undefined) answers.push(second.exit)
      broken.push(...second.broken)
      if (stage.registry.questions.length > 0 && !stage.broken) {
        broken.push(...(yield* askAfter(stage, answers)))
      }
    }
    broken.push(...(yield* stage.close))
    return { steps: first.steps, answers, root, broken }
  })

/** The options of a stage once it is known what a run without a cancel takes. */
export const limited = (options: StageOptions, baseline: Baseline, live: boolean): StageOptions => ({
  ...options,
  live,
  watchful: false,
  maxOperations: Math.min(options.maxOperations, baseline.steps * 20 + 20_000)
})
