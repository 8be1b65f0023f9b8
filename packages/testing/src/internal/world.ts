/**
 * A world: everything that one run of a program needs and could disturb, in one place. Its scheduler, its clock, the
 * list of its fibers, and the loop that drives them.
 *
 * Invariants
 * 1. One run queue. A task runs only when no other task of the world is running, other than by Effect's own
 *    synchronous resumption; which of the runnable tasks is next is decided in its `take` alone.
 * 2. A cancel that is sent at an operation arrives between two tasks: after the fiber has yielded at that operation,
 *    before anything else runs. That is the microtask that follows in a real program. Sent inside the question of the
 *    scheduler itself it would hit windows that cannot happen.
 * 3. The first operation after a fiber was resumed is no place for a cancel: Effect goes on there at once, and its own
 *    scheduler never yields there. The one exception is the first operation of the root: cancelled before the start.
 * 4. Every fiber of the world has a record from its creation to the end of the world, so that no fiber is overlooked
 *    which never ran an operation.
 * 5. Time moves only when nothing is runnable. A world that was woken from outside (a promise, a socket) is `live`, and
 *    from then on waits some turns of the event loop before it moves the time.
 * 6. While something that was sent to the outside has not arrived, nothing runs and time stands still.
 * 7. A dead world runs nothing: every fiber yields at its next operation, and the queue is never taken from again.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Scheduler from "effect/Scheduler"
import * as Tracer from "effect/Tracer"
import { type AnyFiber, type FiberRecord, FiberTable, type Phase } from "./fibers.ts"
import { latestFiberId, start } from "./runner.ts"
import { RunQueue } from "./runQueue.ts"
import { VirtualClock } from "./virtualClock.ts"

export interface WorldOptions {
  readonly context: Context.Context<never>
  /** Real milliseconds to wait for something from outside before time moves or a deadlock is called. */
  readonly patience: number
  /** Whether a world of the same program was woken from outside before. */
  readonly live: boolean
  /** Operations after which the world is stopped. */
  readonly maxOperations: number
  /** Jumps of the clock, per drive, after which the world is stopped. */
  readonly maxJumps: number
  /** How many operations at the start of each fiber but the root are no places for a cancel. */
  readonly young: number
  /** Turns of the event loop without any operation after which a live world counts as quiet. */
  readonly quietTurns: number
  /** Real milliseconds to wait before a standstill in which nothing sleeps is called a deadlock. */
  readonly deadlockPatience: number
}

/** How a drive ended: what was waited for is there, nothing can happen any more, or it goes on for too long. */
export type Ended = "Done" | "Deadlock" | "Endless"

// As in Effect's own scheduler: a loop that never suspends lets the others run.
const operationsBetweenYields = 2048
const evaluate = "~effect/Effect/evaluate"
const realClock = Clock.Clock.defaultValue()

export class World {
  readonly clock: VirtualClock = new VirtualClock(0)
  readonly context: Context.Context<never>
  readonly options: WorldOptions
  phase: Phase = "setup"
  /** Places for a cancel that the run has passed so far. */
  steps = 0
  /** Operations of all phases so far. */
  operations = 0
  live: boolean
  /** Turns of the event loop that the world has waited for the outside. */
  turns = 0
  readonly fibers: FiberTable = new FiberTable()
  root: FiberRecord | undefined
  /** Says whether the operations of a fiber are steps. Default: those of every fiber are. */
  counts: ((fiber: AnyFiber) => boolean) | undefined
  /** Asked at each step; true lets the fiber yield there. */
  onStep: ((fiber: AnyFiber, record: FiberRecord) => boolean) | undefined
  /** Told each operation that is about to be evaluated, of whatever phase. */
  onOperation: ((primitive: unknown, fiber: AnyFiber) => void) | undefined
  /** Told of each fiber of the run when it is created, while its parent is at the operation that creates it. */
  onFork: ((record: FiberRecord, parent: AnyFiber | undefined) => void) | undefined
  /** Told of each fiber at its first operation. */
  onFirst: ((record: FiberRecord, fiber: AnyFiber) => void) | undefined
  /** Chooses among several runnable tasks. Default: the first. */
  choose: ((runnable: number) => number) | undefined
  /** While this says no, nothing of the world runs: something was sent to the outside and has not arrived. */
  arrived: (() => boolean) | undefined
  readonly #queue = new RunQueue()
  readonly #soon: Array<() => void> = []
  #limit = Number.POSITIVE_INFINITY
  #draining = false
  /** The fiber that the task under way runs; others that run meanwhile were resumed by it. */
  #outermost: AnyFiber | undefined
  #dead = false
  #rootExpected = false

  constructor(options: WorldOptions) {
    this.options = options
    this.live = options.live
    const outer = Context.get(options.context, Tracer.Tracer)
    this.context = options.context.pipe(
      Context.add(Clock.Clock, this.clock),
      Context.add(Scheduler.Scheduler, this.#scheduler()),
      Context.add(Scheduler.PreventSchedulerYield, false),
      Context.add(Metric.FiberRuntimeMetrics, {
        recordFiberStart: () => this.#record(),
        recordFiberEnd: () => this.fibers.ended()
      }),
      Context.add(Tracer.Tracer, {
        span: (span) => outer.span(span),
        context: (primitive, fiber) => {
          if (this.onOperation !== undefined) this.onOperation(primitive, fiber)
          return outer.context === undefined ? primitive[evaluate](fiber) : outer.context(primitive, fiber)
        }
      })
    )
  }

  #scheduler(): Scheduler.Scheduler {
    return {
      executionMode: "async",
      shouldYield: (fiber) => this.#shouldYield(fiber),
      makeDispatcher: () => {
        const owner = {}
        return {
          scheduleTask: (run, priority) => this.#queue.add({ run, owner }, priority),
          flush: () => this.#flush(owner)
        }
      }
    }
  }

  #record(): void {
    const record = this.#enter(latestFiberId())
    if (this.onFork === undefined) return
    this.onFork(record, record.parent === undefined ? undefined : Fiber.getCurrent())
  }

  #enter(id: number): FiberRecord {
    const record = this.fibers.enter(id, this.phase, Fiber.getCurrent(), this.steps)
    if (this.#rootExpected) {
      this.#rootExpected = false
      this.root = record
    }
    return record
  }

  #shouldYield(fiber: AnyFiber): boolean {
    if (this.#dead) return true
    this.operations++
    if (!this.#draining) this.live = true
    const record = this.fibers.recordOf(fiber) ?? this.#enter(fiber.id)
    if (record.fiber === undefined) {
      record.fiber = fiber
      this.onFirst?.(record, fiber)
    }
    if (this.#outermost === undefined) this.#outermost = fiber
    if (this.operations > this.#limit) return true
    record.operations++
    if (
      this.phase === "run" &&
      (fiber.currentOpCount > 1 || (record === this.root && this.steps === 0)) &&
      (record.operations > this.options.young || record === this.root) &&
      (this.counts === undefined || this.counts(fiber))
    ) {
      this.steps++
      if (this.onStep?.(fiber, record) === true) return true
    }
    return fiber.currentOpCount >= operationsBetweenYields
  }

  /** How many tasks could be the next one. */
  get runnable(): number {
    return this.#queue.size
  }

  /** Whether anything else could run if this fiber, which is running, yielded. */
  isAlone(fiber: AnyFiber): boolean {
    return this.runnable === 0 && this.#outermost === fiber
  }

  #flush(owner: object): void {
    while (!this.#dead) {
      const task = this.#queue.takeOf(owner)
      if (task === undefined) return
      task.run()
    }
  }

  /** Does something between two tasks, before anything else runs. */
  soon(run: () => void): void {
    this.#soon.push(run)
  }

  /** Starts an effect of the given phase as soon as the world is driven; returns a look at its exit. */
  start<A, E, R>(effect: Effect.Effect<A, E, R>, phase: Phase): () => Exit.Exit<A, E> | undefined {
    let fiber: Fiber.Fiber<A, E> | undefined
    this.soon(() => {
      if (phase !== this.phase) this.fibers.renumber()
      this.phase = phase
      this.#rootExpected = phase === "run" || phase === "after"
      if (this.#rootExpected) this.steps = 0
      fiber = start(effect, this.context as Context.Context<R>)
    })
    return () => fiber?.pollUnsafe()
  }

  #drain(done: () => boolean): Ended | "Idle" {
    this.#draining = true
    try {
      while (true) {
        this.#outermost = undefined
        const urgent = this.#soon.shift()
        if (urgent !== undefined) {
          urgent()
          continue
        }
        if (this.arrived !== undefined) return "Idle"
        if (done()) return "Done"
        if (this.operations > this.#limit) return "Endless"
        const task = this.#queue.take(this.choose)
        if (task === undefined) return "Idle"
        task.run()
      }
    } finally {
      this.#draining = false
    }
  }

  /**
   * Runs the world until `done`, or until nothing can happen any more. `until` bounds the virtual time: with it, time
   * does not move further. `quiet` says whether to wait for the outside in a world that never heard of it: with true
   * before each jump, with false never; by default before a deadlock is called.
   */
  drive(
    done: () => boolean,
    options?: { readonly until?: number | undefined; readonly quiet?: boolean | undefined }
  ): Effect.Effect<Ended> {
    const until = options?.until ?? Number.POSITIVE_INFINITY
    this.#limit = this.operations + this.options.maxOperations
    let turns = 0
    let jumps = 0
    let seen = -1
    let waited = 0
    const turn: Effect.Effect<Ended> = Effect.suspend(() => {
      while (true) {
        const ended = this.#drain(done)
        if (ended !== "Idle") return Effect.succeed(ended)
        if (this.arrived !== undefined) {
          if (!this.arrived()) return Effect.andThen(Effect.yieldNow, turn)
          this.arrived = undefined
          continue
        }
        if (this.operations !== seen) {
          seen = this.operations
          turns = 0
          waited = 0
        }
        const next = this.clock.next
        const sleeps = next !== undefined && next <= until
        const quiet = this.live || (options?.quiet ?? !sleeps)
        // Where only the outside can go on, there is no hurry to sleep.
        if (quiet && turns < this.options.quietTurns * (sleeps ? 1 : 20)) {
          turns++
          this.turns++
          return Effect.andThen(Effect.yieldNow, turn)
        }
        if (waited < this.options.patience && options?.quiet !== false) {
          waited++
          return Effect.andThen(oneMilli, turn)
        }
        if (!sleeps && options?.quiet !== false && waited < this.options.deadlockPatience) {
          waited++
          return Effect.andThen(oneMilli, turn)
        }
        if (!sleeps) return Effect.succeed("Deadlock")
        if (jumps++ >= this.options.maxJumps) return Effect.succeed("Endless")
        this.#draining = true
        this.#outermost = undefined
        this.clock.jump()
        this.#draining = false
      }
    })
    return turn
  }

  /** Ends the world: nothing of it runs again. */
  kill(): void {
    this.#dead = true
    this.#queue.clear()
    this.#soon.length = 0
  }
}

const oneMilli = Effect.provideService(Effect.sleep(Duration.millis(1)), Clock.Clock, realClock)
