/**
 * A stage: one world with one subject set up in it, and what is done there: run it, ask it, close it.
 *
 * Invariants
 * 1. Every run is between `before` and `after` of all checks, and every finding of a run is found before the next one
 *    starts.
 * 2. A stage on which something did not terminate is `broken`: it is killed, and nothing more is learned from it.
 * 3. `close` closes the scope of the setup and lets everything end that still can; only what is alive after that is a
 *    fiber left.
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Subject } from "../Subject.ts"
import type { FiberRecord, Phase } from "./fibers.ts"
import { type Capture, capture, fiberName } from "./position.ts"
import { type Broken, CurrentRegistry, Registry } from "./registry.ts"
import { type Ended, World, type WorldOptions } from "./world.ts"

export interface StageOptions extends Omit<WorldOptions, "context"> {
  /** Whether to wait for the outside before time moves, in a world that has not heard of it yet. */
  readonly watchful: boolean
  /** Virtual milliseconds that what was started may go on after its run, before it counts as left. */
  readonly settle: number
}

interface RunResult {
  readonly ended: Ended
  readonly exit: Exit.Exit<unknown, unknown> | undefined
  readonly steps: number
  readonly broken: ReadonlyArray<Broken>
}

export class Stage {
  readonly world: World
  readonly registry: Registry
  readonly program: Effect.Effect<unknown, unknown, unknown>
  readonly #scope: Scope.Closeable
  readonly #options: StageOptions
  /** The fibers that stood in the way, at the moment at which the stage broke. */
  stuck: ReadonlyArray<Capture> = []
  broken = false

  constructor(
    world: World,
    registry: Registry,
    program: Effect.Effect<unknown, unknown, unknown>,
    scope: Scope.Closeable,
    options: StageOptions
  ) {
    this.world = world
    this.registry = registry
    this.program = program
    this.#scope = scope
    this.#options = options
  }

  /** Runs an effect of one phase to its end. */
  #complete<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    phase: Phase
  ): Effect.Effect<{ readonly ended: Ended; readonly exit: Exit.Exit<A, E> | undefined }> {
    return Effect.suspend(() => {
      const look = this.world.start(effect, phase)
      return Effect.map(
        this.world.drive(() => look() !== undefined, { quiet: quietIn(phase, this.#options) }),
        (ended) => {
          if (ended !== "Done") this.#break()
          return { ended, exit: look() }
        }
      )
    })
  }

  #break(): void {
    this.broken = true
    this.stuck = this.world.fibers
      .alive()
      .flatMap((record) => (record.fiber === undefined ? [] : [capture(record.fiber, record, 0)]))
    this.world.kill()
  }

  /** Lets what is runnable run, and time move for as long as things may take to settle. */
  readonly #settle: Effect.Effect<Ended> = Effect.suspend(() =>
    this.world.drive(() => false, { until: this.world.clock.now + this.#options.settle, quiet: false })
  )

  /** One run of the program, or of a question, with the checks around it. */
  run(phase: "run" | "after", effect: Effect.Effect<unknown, unknown, unknown>, cancelled: () => boolean) {
    return Effect.gen({ self: this }, function* () {
      const { checks } = this.registry
      for (const { before } of checks) yield* this.#complete(before, "check")
      const { ended, exit } = yield* this.#complete(
        Effect.provideService(effect, CurrentRegistry, this.registry),
        phase
      )
      const { steps } = this.world
      const broken: Array<Broken> = []
      if (exit === undefined) {
        broken.push({ kind: "NotTerminated", probe: undefined, message: notTerminated(ended) })
        return { ended, exit, steps, broken: [...broken, ...this.registry.noted()] } satisfies RunResult
      }
      if ((yield* this.#settle) === "Endless") {
        this.#break()
        const message = "what the run left behind goes on for ever"
        return {
          ended,
          exit,
          steps,
          broken: [...this.registry.noted(), { kind: "NotTerminated", probe: undefined, message }]
        } satisfies RunResult
      }
      for (const noted of this.registry.noted()) broken.push(noted)
      for (const check of checks) {
        if (this.broken) break
        const checked = yield* this.#complete(check.after({ exit, cancelled: cancelled() }), "check")
        if (checked.exit === undefined) {
          broken.push({ kind: "NotTerminated", probe: check.name, message: `${check.name} does not answer` })
        } else if (Exit.isFailure(checked.exit)) {
          const message = `${check.name} failed: ${Cause.pretty(checked.exit.cause).split("\n")[0]}`
          broken.push({ kind: "Invariant", probe: check.name, message })
        } else for (const found of checked.exit.value) broken.push(found)
      }
      return { ended, exit, steps, broken } satisfies RunResult
    })
  }

  /** Closes the scope of the setup and tells what is left. */
  readonly close: Effect.Effect<ReadonlyArray<Broken>> = Effect.gen({ self: this }, function* () {
    if (this.broken) return []
    const { exit } = yield* this.#complete(Scope.close(this.#scope, Exit.void), "close")
    if (exit === undefined) {
      const message = "the scope of the setup does not close"
      return [{ kind: "NotTerminated", probe: undefined, message }]
    }
    yield* this.#settle
    const broken: Array<Broken> = [...this.registry.noted()]
    for (const check of this.registry.checks) for (const found of check.atEnd()) broken.push(found)
    const left = this.world.fibers.alive()
    if (left.length > 0) {
      broken.push({ kind: "FiberLeft", probe: undefined, message: fibersLeft(left) })
      this.stuck = left.flatMap((record) =>
        record.fiber === undefined ? [] : [capture(record.fiber, record, record.born)]
      )
      for (const { fiber } of left) if (fiber !== undefined) this.world.soon(() => fiber.interruptUnsafe())
      yield* this.#settle
    }
    this.world.kill()
    return broken
  })
}

const quietIn = (phase: Phase, { live, watchful }: StageOptions): boolean | undefined =>
  phase === "check" && !live ? false : watchful ? true : undefined

const notTerminated = (ended: Ended): string =>
  ended === "Endless"
    ? "the run goes on for ever"
    : "the run does not end: nothing is runnable and nothing sleeps"

const fibersLeft = (left: ReadonlyArray<FiberRecord>): string =>
  `${left.length} fiber${left.length === 1 ? " is" : "s are"} left: ${left
    .slice(0, 5)
    .map(fiberName)
    .join(", ")}${left.length > 5 ? ", …" : ""}`

/** Sets a subject up in a world of its own. A setup that fails or does not end is the failure of this effect. */
export const open = <A, E, R, E2, R2>(
  subject: Subject<A, E, R, E2, R2>,
  context: Context.Context<never>,
  options: StageOptions
): Effect.Effect<Stage, E2> =>
  Effect.suspend(() => {
    const world = new World({ ...options, context })
    const registry = new Registry()
    const scope = Scope.makeUnsafe()
    const look = world.start(
      subject.setup.pipe(
        Effect.provideService(CurrentRegistry, registry),
        Effect.provideService(Scope.Scope, scope)
      ),
      "setup"
    )
    return Effect.flatMap(
      world.drive(() => look() !== undefined),
      (ended) => {
        const exit = look()
        if (exit === undefined) {
          world.kill()
          return Effect.die(new Error(`The setup did not end (${ended}).`))
        }
        if (Exit.isFailure(exit)) return Effect.failCause(exit.cause)
        const program = exit.value as Effect.Effect<unknown, unknown, unknown>
        return Effect.succeed(new Stage(world, registry, program, scope, options))
      }
    )
  })
