/**
 * The sweep over a connection: a server in a world, a client beside it that leaves when the server comes to a step.
 *
 * Invariants
 * 1. The steps are the operations of every fiber that was created in the run, other than the client's own.
 * 2. When the client leaves, nothing of the world runs until the server has heard of it, or for a bounded number of
 *    turns: so the server hears of it at that very step.
 * 3. A run ends when the client's side is over, every watched handler has ended, and no connection is left; that a
 *    handler does not end is a run that does not end, and that a connection stays is a finding of its own.
 * 4. A step at which nobody left is the end of a sweep, as in `sweeping`.
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Finding } from "../Finding.ts"
import type { Subject } from "../Subject.ts"
import type { SweepReport } from "../SweepReport.ts"
import { describeExit } from "./equal.ts"
import { inWords } from "./explain.ts"
import type { Capture } from "./position.ts"
import { type Broken, CurrentRegistry, nothing } from "./registry.ts"
import { open, type Stage, type StageOptions } from "./stage.ts"
import type { Raw } from "./sweeping.ts"
import { swept } from "./swept.ts"
import {
  askAfter,
  type Baseline,
  hasDefect,
  limited,
  measure,
  type Plan,
  trial,
  withoutKnown
} from "./trial.ts"

/** One call of a client. */
export interface RemoteCall<Way> {
  /** Resumes with what the client got, when its side is over. Never fails. */
  readonly outcome: Effect.Effect<unknown>
  /** Leaves, now. */
  readonly leave: (way: Way) => void
  /** Whether the server has been told by its transport. */
  readonly heard: () => boolean
  /** Lets somebody know of each part of the answer that arrives. */
  readonly onArrival: (tell: () => void) => void
}

/** A server that listens. */
export interface Remote<Way> {
  readonly call: Effect.Effect<RemoteCall<Way>>
  /** How many connections (or calls) the server still has. */
  readonly connections: () => number
  /** Resumes when there is none. */
  readonly calm: Effect.Effect<void>
}

type Watch = <A, E, R>(handler: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

export interface RemoteSweep<Way extends Finding["mode"], E2> {
  readonly name: string | undefined
  readonly serve: (watch: Watch) => Effect.Effect<Remote<Way>, E2, Scope.Scope>
  readonly context: Context.Context<never>
  readonly stage: StageOptions
  /** The ways to leave at a step. */
  readonly ways: ReadonlyArray<Way>
  /** The way to leave when the n-th part of the answer arrives, and how a finding calls that. */
  readonly arrivals: { readonly way: Way; readonly mode: Finding["mode"] } | undefined
  readonly states: ReadonlyArray<"fresh" | "kept">
  readonly maxSteps: number
  readonly onTrial: (mode: Finding["mode"], state: "fresh" | "kept", step: number, of: number) => void
}

// An idle turn takes microseconds; a reset on the loopback device is there after two.
const turnsUntilHeard = 2_000

/** What goes on in one world. */
interface Watched {
  active: number
  watched: number
  onIdle: (() => void) | undefined
}

interface Session<Way> extends Watched {
  readonly remote: Remote<Way>
  call: RemoteCall<Way> | undefined
  onArrival: (() => void) | undefined
}

const ended = (session: Watched): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (session.active === 0) {
      resume(Effect.void)
      return
    }
    session.onIdle = () => resume(Effect.void)
  })

/** Marks the effect whose end is waited for. No cancel can fall between the count and what takes it back. */
const watchIn =
  (session: Watched): Watch =>
  (handler) =>
    Effect.suspend(() => {
      let entered = false
      const counted = Effect.suspend(() => {
        entered = true
        session.active++
        session.watched++
        return handler
      })
      return Effect.onExitPrimitive(counted, () => {
        if (entered && --session.active === 0) session.onIdle?.()
        return undefined
      })
    })

const program = <Way>(session: Session<Way>): Effect.Effect<unknown> =>
  Effect.gen(function* () {
    session.onIdle = undefined
    const call = yield* session.remote.call
    session.call = call
    call.onArrival(() => session.onArrival?.())
    const outcome = yield* call.outcome
    // Time moves when nothing is runnable: a handler that was about to start has started after this.
    yield* Effect.sleep("1 millis")
    yield* ended(session)
    yield* Effect.timeoutOption(session.remote.calm, "1 minute").pipe(
      Effect.map(Option.isSome),
      Effect.andThen(Effect.sleep("1 millis"))
    )
    return outcome
  })

const left = (count: number): ReadonlyArray<Broken> =>
  count === 0
    ? []
    : [
        {
          kind: "NotReleased",
          probe: "connection",
          message: `${count} connection${count === 1 ? "" : "s"} open after the end of the request`
        }
      ]

/** Lets the client leave, and the world wait until the server knows. */
const leaveIn = <Way>(stage: Stage, session: Session<Way>, way: Way): void => {
  const { call } = session
  if (call === undefined) return
  call.leave(way)
  let turns = 0
  stage.world.arrived = () => call.heard() || ++turns > turnsUntilHeard
}

const prepare = (stage: Stage): Stage => {
  const { world } = stage
  world.counts = (fiber) => {
    const record = world.fibers.recordOf(fiber)
    return record !== undefined && record.phase === "run" && record !== world.root
  }
  return stage
}

/** A run in which the client leaves when the n-th part of the answer arrives. */
const atArrival = <Way>(
  stage: Stage,
  session: Session<Way>,
  baseline: Baseline,
  way: Way,
  at: number
): Effect.Effect<{ readonly sent: boolean; readonly broken: ReadonlyArray<Broken> }> =>
  Effect.gen(function* () {
    let arrivals = 0
    let sent = false
    session.onArrival = () => {
      if (++arrivals !== at) return
      sent = true
      leaveIn(stage, session, way)
    }
    const run = yield* stage.run("run", stage.program, () => sent)
    session.onArrival = undefined
    const broken: Array<Broken> = [...run.broken]
    if (run.exit !== undefined && hasDefect(run.exit) && !baseline.answers.some(hasDefect)) {
      broken.push({ kind: "Defect", probe: undefined, message: defect(run.exit) })
    }
    if (!stage.broken && sent) broken.push(...(yield* askAfter(stage, baseline.answers)))
    return { sent, broken: withoutKnown(broken, baseline.broken) }
  })

const defect = (exit: Exit.Exit<unknown, unknown>): string =>
  `the run whose client left ended with ${describeExit(exit)}`

/** No handler ran that was watched: the sweep would be over nothing. */
const notWatched =
  "No handler ran inside of `watch`: put it around the effect that handles the request, and run that in the context of `serve`."

export const remoteSweep = <Way extends Finding["mode"], E2>(
  self: RemoteSweep<Way, E2>
): Effect.Effect<SweepReport, E2> =>
  Effect.gen(function* () {
    const raw: Array<Raw> = []
    let complete = true
    let runs = 1
    let session: Session<Way> | undefined
    const subject: Subject<unknown, unknown, never, E2, Scope.Scope> = {
      name: self.name,
      setup: Effect.gen(function* () {
        const idle = { active: 0, watched: 0, onIdle: undefined }
        const remote = yield* self.serve(watchIn(idle))
        const own: Session<Way> = Object.assign(idle, { remote, call: undefined, onArrival: undefined })
        session = own
        const registry = yield* CurrentRegistry
        registry?.checks.push({
          ...nothing,
          name: "connection",
          before: Effect.void,
          after: () => Effect.sync(() => left(own.remote.connections()))
        })
        return program(own)
      })
    }
    const opened = (options: StageOptions) =>
      Effect.map(open(subject, self.context, options), (stage) => ({
        stage: prepare(stage),
        session: session as Session<Way>
      }))
    const first = yield* opened(self.stage)
    const baseline = yield* measure(first.stage)
    const add = (
      mode: Finding["mode"],
      state: "fresh" | "kept",
      stage: Stage,
      found: ReadonlyArray<Broken>,
      plan?: Plan,
      hit?: Capture
    ): void => {
      for (const broken of found) raw.push({ broken, mode, state, plan, hit, waiting: stage.stuck })
    }
    add("none", "fresh", first.stage, baseline.broken)
    if (first.session.watched === 0 && !first.stage.broken) return yield* Effect.die(new Error(notWatched))
    const options = limited(self.stage, baseline, true)

    /** Leaves one place later in each run, until a run ends before its place. */
    const each = (
      mode: Finding["mode"],
      state: "fresh" | "kept",
      once: (
        on: { readonly stage: Stage; readonly session: Session<Way> },
        at: number
      ) => Effect.Effect<{ readonly sent: boolean; readonly broken: ReadonlyArray<Broken>; hit?: Capture }>
    ): Effect.Effect<void, E2> =>
      Effect.gen(function* () {
        let on = state === "kept" ? yield* opened(options) : undefined
        const before = raw.length
        for (let at = 1; ; at++) {
          if (at > self.maxSteps) {
            complete = false
            break
          }
          const own = on ?? (yield* opened(options))
          runs++
          self.onTrial(mode, state, at, baseline.steps)
          const { broken, hit, sent } = yield* once(own, at)
          const closed = state === "fresh" ? withoutKnown(yield* own.stage.close, baseline.broken) : []
          add(mode, state, own.stage, [...broken, ...closed], { at, victim: "root" }, hit)
          if (on !== undefined && own.stage.broken) on = yield* opened(options)
          else if (on !== undefined) own.stage.world.fibers.prune()
          if (!sent) break
        }
        if (on === undefined) return
        const known = [...baseline.broken, ...raw.slice(before).map(({ broken }) => broken)]
        add(mode, state, on.stage, withoutKnown(yield* on.stage.close, known))
      })

    if (!first.stage.broken) {
      for (const state of self.states) {
        for (const way of self.ways) {
          yield* each(way, state, ({ session: own, stage }, at) =>
            Effect.map(
              trial(stage, { at, victim: "root" }, baseline, () => leaveIn(stage, own, way)),
              ({ broken, hit, sent }) => ({ broken, sent: sent > 0, ...(hit === undefined ? {} : { hit }) })
            )
          )
        }
        const { arrivals } = self
        if (arrivals !== undefined) {
          yield* each(arrivals.mode, state, ({ session: own, stage }, at) =>
            atArrival(stage, own, baseline, arrivals.way, at)
          )
        }
      }
    }
    const findings = inWords(raw)
    const report: SweepReport = {
      name: self.name,
      ok: findings.length === 0,
      steps: baseline.steps,
      runs,
      complete: complete && !first.stage.broken,
      findings
    }
    if (self.name !== undefined) swept.set(self.name, report)
    return report
  })
