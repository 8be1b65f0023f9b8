/**
 * The state of a shutdown, and its stages one by one.
 *
 * Invariants
 * 1. Nothing here waits but in `awaitTrigger` and in `phase`, which ends at its limit and at a signal.
 * 2. Stop and drain share one limit, force has its own: together they bound the whole, whatever is waited for.
 * 3. Owned work is cancelled first, the program when that has ended, at the latest at half of the time to force: its
 *    edges have answers to send. Hooks hang beside both; those that break off by force start with the program's cancel.
 * 4. A signal after the first ends the phase it arrives in; with `exit` it ends all of them. One that follows another
 *    of its name within the window is the same signal, delivered twice.
 */
import { CancelReason } from "@curfew/reason"
import { CancelCell, type Cell, CurrentCell, childrenOf } from "@curfew/reason/CancelCell"
import { moveOnAfter } from "@curfew/scope"
import { millisUnsafe } from "@curfew/scope/Argument"
import * as Child from "@curfew/scope/Child"
import * as Instant from "@curfew/scope/Instant"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { ReportPhase, Trigger } from "../Report.ts"
import type { ShutdownOptions } from "../Shutdown.ts"
import { Ledger } from "./ledger.ts"
import { type Hook, Registry } from "./registry.ts"

const drainReason: CancelReason = /* @__PURE__ */ CancelReason.Shutdown({ phase: "drain" })
const forceReason: CancelReason = /* @__PURE__ */ CancelReason.Shutdown({ phase: "force" })

const waitOver: CancelReason = /* @__PURE__ */ CancelReason.Requested({ message: "the phase has ended" })

const toMillis = (argument: string, input: Duration.Input | undefined, otherwise: number): number =>
  input === undefined ? otherwise : Math.max(0, millisUnsafe(argument, input))

/** The cell of a task that has not ended yet. */
const cellOf = (tasks: Cell, fiber: Fiber.Fiber<unknown, unknown>): Cell | undefined => {
  for (const cell of childrenOf(tasks)) if (cell.fiber === fiber) return cell
  return undefined
}

export class Stages {
  readonly waiter: Fiber.Fiber<unknown, unknown>
  readonly options: ShutdownOptions
  readonly clock: Clock.Clock
  readonly name: string
  readonly drain: number
  readonly force: number
  readonly #window: number
  /** When a signal of a name was last counted. */
  readonly #heard = new Map<string, number>()
  readonly ledger = new Ledger(() => this.now)
  readonly registry: Registry
  /** The program and its owner. */
  readonly whole: CancelCell
  readonly ownerCell: CancelCell
  mainCell!: CancelCell
  readonly hooksCell: CancelCell
  readonly phases: Array<ReportPhase> = []
  owner!: TaskScope.TaskScope
  hooks!: TaskScope.TaskScope
  trigger: Trigger | undefined
  /** When the present phase has to end, in monotonic milliseconds. */
  until = Number.POSITIVE_INFINITY
  #signals = 0
  #hurry = 0
  #onTrigger: (() => void) | undefined
  #onHurry: (() => void) | undefined

  constructor(waiter: Fiber.Fiber<unknown, unknown>, options: ShutdownOptions) {
    this.waiter = waiter
    this.options = options
    this.clock = waiter.getRef(Clock.Clock)
    this.name = options.name ?? "main"
    // First, because it may throw: nothing stands in the live tree yet.
    this.drain = toMillis("the drain of the shutdown", options.drain, 20_000)
    this.force = toMillis("the force of the shutdown", options.force, 8_000)
    this.#window = toMillis("the signalWindow of the shutdown", options.signalWindow, 100)
    this.whole = new CancelCell("scope", { name: this.name, outer: waiter.getRef(CurrentCell) })
    this.hooksCell = new CancelCell("tasks", { name: "shutdown" })
    this.ownerCell = new CancelCell("owner", { name: this.name, parent: this.whole })
    this.registry = new Registry({
      start: (hook) => this.startHook(hook),
      begin: () => this.begin({ _tag: "Requested" })
    })
  }

  get now(): number {
    return Instant.nowOf(this.clock)
  }

  /** What clean-up that begins now may take. */
  get budgetLeft(): number {
    const left = this.until - this.now
    switch (this.registry.stage) {
      case "running":
        return Number.POSITIVE_INFINITY
      case "stop":
      case "drain":
        return left + this.force / 2
      default:
        return left / 2
    }
  }

  begin(trigger: Trigger): void {
    if (this.trigger !== undefined) return
    this.trigger = trigger
    this.#onTrigger?.()
  }

  signal(name: string): void {
    const last = this.#heard.get(name)
    if (last !== undefined && this.now - last < this.#window) return
    this.#heard.set(name, this.now)
    this.#signals++
    if (this.#signals === 1) {
      this.begin({ _tag: "Signal", signal: name })
      return
    }
    this.#hurry++
    this.#onHurry?.()
  }

  readonly awaitTrigger: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.trigger !== undefined) {
      resume(Effect.void)
      return
    }
    this.#onTrigger = () => resume(Effect.void)
  })

  startHook({ context, effect, name }: Hook): void {
    const task = TaskScope.spawnUnsafe(this.hooks, context, effect, { name })
    if (task !== undefined) this.ledger.enter("hook", name, task.fiber, cellOf(this.hooksCell, task.fiber))
  }

  /** Enters what the owner has now. */
  enterTasks(): void {
    TaskScope.fillPlacesUnsafe(this.owner)
    for (const cell of childrenOf(this.ownerCell)) {
      if (cell.fiber !== undefined) this.ledger.enter("task", cell.name, cell.fiber, cell)
    }
  }

  /** A task that the owner has started. */
  readonly onTask = (cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>): void => {
    if (this.trigger !== undefined) {
      this.ledger.enter("task", cell.name, fiber, cell, true)
    }
  }

  /** Takes everything of it out of the tree: it never began. */
  dismiss(): void {
    for (const cell of [this.ownerCell, this.hooksCell, this.whole]) cell.unlink()
  }

  /** Waits until the work is done, the present limit has passed, or a signal moves on. */
  phase(phase: ReportPhase["phase"], work: Effect.Effect<unknown>): Effect.Effect<ReportPhase["endedBy"]> {
    return Effect.suspend(() => {
      const began = this.now
      // A scope in the live tree: the phase is what waits, not what is waited for.
      const task = TaskScope.spawnUnsafe(this.hooks, this.waiter.context, work, {
        name: phase,
        kind: "scope"
      })
      return Effect.map(
        Effect.callback<ReportPhase["endedBy"]>((resume) => {
          const fiber = task?.fiber
          let disarm: () => void = () => {}
          let ended = false
          const end = (endedBy: ReportPhase["endedBy"]) => {
            // Cancelling the work ends its fiber, which calls here again.
            if (ended) return
            ended = true
            this.#onHurry = undefined
            disarm()
            task?.cancelUnsafe(waitOver)
            resume(Effect.succeed(endedBy))
          }
          const moveOn = () => {
            if (this.options.secondSignal !== "exit") this.#hurry--
            end("signal")
          }
          if (fiber === undefined || fiber.pollUnsafe() !== undefined) end("done")
          else if (this.#hurry > 0) moveOn()
          else {
            this.#onHurry = moveOn
            const left = this.until - this.now
            if (left <= 0) return end("limit")
            if (left !== Number.POSITIVE_INFINITY)
              disarm = Child.armUnsafe(this.waiter.context, this.clock, left, () => end("limit"))
            fiber.addObserver(() => end("done"))
          }
        }),
        (endedBy) => {
          this.phases.push({ phase, took: Duration.millis(this.now - began), endedBy })
          return endedBy
        }
      )
    })
  }

  /** Stop and drain; true when nothing is left. */
  readonly drained: Effect.Effect<boolean> = Effect.suspend(() => {
    this.until = this.now + this.drain
    this.registry.stage = "stop"
    for (const cell of [this.whole, this.ownerCell, this.mainCell]) cell.draining = true
    this.enterTasks()
    for (const hook of this.registry.takeHooks("stop")) this.startHook(hook)
    return Effect.flatMap(this.phase("stop", this.ledger.awaitAll(["hook"])), (stopped) => {
      if (stopped !== "done") return Effect.succeed(false)
      this.registry.stage = "drain"
      this.enterTasks()
      for (const hook of this.registry.takeHooks("drain")) this.startHook(hook)
      const work = Effect.andThen(this.ledger.awaitAll(["hook"]), this.owner.drain())
      return Effect.map(this.phase("drain", work), (drained) => drained === "done")
    })
  })

  /** Cancels the work that is left, and then the program, and waits for their clean-up. */
  forced(drained: boolean): Effect.Effect<unknown> {
    return Effect.suspend(() => {
      this.until = this.now + this.force
      this.registry.stage = "force"
      this.enterTasks()
      const reason = drained ? drainReason : forceReason
      for (const cell of childrenOf(this.hooksCell) as ReadonlyArray<CancelCell>) cell.cancel(reason)
      this.ownerCell.cancel(reason)
      let cancelled = false
      const cancelProgram = Effect.sync(() => {
        if (cancelled) return
        cancelled = true
        // Taken before the cancel, which closes the scopes that they are registered in, and run after it.
        const hooks = drained ? [] : this.registry.takeHooks("force")
        this.whole.cancel(reason)
        for (const hook of hooks) this.startHook(hook)
      })
      // The program's edges outlive the work for a moment: they have the answers of cancelled handlers to send.
      const work = Effect.andThen(
        moveOnAfter(this.force / 2)(this.ledger.awaitAll(["task"])),
        Effect.andThen(cancelProgram, this.ledger.awaitAll())
      )
      return Effect.andThen(this.phase("force", work), cancelProgram)
    })
  }
}
