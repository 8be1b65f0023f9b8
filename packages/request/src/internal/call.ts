/**
 * One call: a handler in a fiber of its own under the server's owner, and an edge that waits for what to answer.
 *
 * Invariants
 * 1. The handler hangs below the owner, and beside the edge: what reaches it from the edge goes through here. It knows
 *    the edge's cell only as the way to ask outwards.
 * 2. The edge goes on when the handler has ended, when its cell was cancelled, or when it was detached; never earlier,
 *    and once. When that happens while the call starts it is told at once if a request's handler has ended and nobody
 *    has interrupted the edge, and otherwise through the dispatcher, so that `abandon` stands.
 * 3. An exit has one receiver: `settle` decides in the handler's last finalizer whether the edge will take it; what the
 *    edge was to take and did not get, because it was interrupted, goes the other way in `abandon`.
 * 4. The peer's leaving reaches the handler by the policy alone; every other cancel is a cancel of its cell.
 * 5. After a cancel nobody waits longer than the clean-up budget: the edge, a watcher under the owner, or, for an
 *    owner that is closed, the owner's own end.
 * 6. Timers, ears and the lease end with the handler.
 */
import { CancelReason, currentReason, fromCause, ownInterrupt } from "@curfew/reason"
import { CancelCell, CurrentCell, keepUnsafe, startsApartUnsafe } from "@curfew/reason/CancelCell"
import { failureOf, ownerClosedTotal, reportUnhandled } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import * as Child from "@curfew/scope/Child"
import { receive } from "@curfew/scope/LateResult"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Answer, Call, EndpointOptions } from "../Endpoint.ts"
import type { CallInfo, OnDisconnect } from "../OnDisconnect.ts"
import { CurrentRequest } from "../RequestContext.ts"
import { answerTo } from "./answer.ts"
import { CurrentCall, droppedTotal } from "./currentCall.ts"
import { deadlineReason, until } from "./deadline.ts"
import { type Ear, Peer } from "./peer.ts"

let keeps = false

/** Before the first is made. */
const keep = (): void => {
  keeps = true
  const peer = new Peer()
  const kept = { context: Context.empty(), method: "", kind: "request", transport: "", peer } as never
  keepUnsafe(new CallState(kept, kept, "cancel", undefined as never, undefined, Child.keptCell()))
}

export const makeCall = <A, E>(
  waiter: Fiber.Fiber<unknown, unknown>,
  options: EndpointOptions<A, E, never>,
  policy: OnDisconnect,
  owner: TaskScope.TaskScope
): CallState<A, E> => {
  if (!keeps) keep()
  // First, because it may throw: a request that has ended can forbid its use.
  const release = waiter.getRef(CurrentRequest)?.hold(options.method)
  const cell = new CancelCell("call", { name: options.method, outer: waiter.getRef(CurrentCell) })
  return new CallState(waiter, options, policy, owner, release, cell)
}

export class CallState<A, E> implements Call, Ear {
  readonly method: string
  readonly kind: CallInfo["kind"]
  readonly transport: CallInfo["transport"]
  readonly peer: Peer
  readonly policy: OnDisconnect
  readonly #options: EndpointOptions<A, E, never>
  readonly #owner: TaskScope.TaskScope
  readonly #waiter: Fiber.Fiber<unknown, unknown>
  // Taken at the start: the waiter's own changes when it goes on, and the handler may outlive that.
  readonly #context: Context.Context<never>
  readonly #release: Effect.Effect<void> | undefined
  readonly #cell: CancelCell
  readonly #undo: Array<() => void> = []
  // One, and a second while an edge that was interrupted waits.
  readonly #ears: Array<() => void> = []
  #fiber: Fiber.Fiber<A, E> = undefined as never
  #exit: Exit.Exit<A, E> | undefined = undefined
  #disarm: (() => void) | undefined = undefined
  #observers = 0
  #ended = false
  /** The handler stands in the owner; otherwise it is attached to the edge. */
  #adopted = false
  /** The edge has gone on, or away, without the handler's exit. */
  #left = false
  #dropped = false

  constructor(
    waiter: Fiber.Fiber<unknown, unknown>,
    options: EndpointOptions<A, E, never>,
    policy: OnDisconnect,
    owner: TaskScope.TaskScope,
    release: Effect.Effect<void> | undefined,
    cell: CancelCell
  ) {
    this.method = options.method
    this.kind = options.kind
    this.transport = options.transport
    this.peer = options.peer as Peer
    this.policy = policy
    this.#options = options
    this.#owner = owner
    this.#waiter = waiter
    this.#context = waiter.context
    this.#release = release
    this.#cell = cell
  }

  get #clock(): Clock.Clock {
    return Context.get(this.#context, Clock.Clock)
  }

  /** An answer at a cancel goes out at once: the handler was not written to be interrupted. */
  get #prompt(): boolean {
    return this.policy === "shield" || this.policy === "detach"
  }

  get #gone(): CancelReason | undefined {
    return this.peer.goneOnce.value
  }

  start(handler: Effect.Effect<A, E, never>): void {
    const context = this.#context
    const cell = this.#cell
    const { deadline } = this.#options
    if (deadline !== undefined) cell.deadline = deadline
    const own =
      this.policy === "detach" ? Effect.scoped(handler as Effect.Effect<A, E, Scope.Scope>) : handler
    // Its peer may leave in the first steps of the handler. Mostly nobody else hears the signal, and no function is needed.
    const { peer } = this
    if (peer.ear === undefined) peer.ear = this
    else
      this.#undo.push(
        peer.goneOnce.listen(() => this.peerGone()),
        peer.stopOnce.listen((reason) => this.stopped(reason))
      )
    this.#fiber = Child.startUnder(Context.add(context, CurrentCall, this), cell, own, this)
    // A handler that has ended at once needs no timer, no place in the owner, and nobody to stop it.
    if (this.#fiber.pollUnsafe() !== undefined) {
      this.#end()
      return
    }
    if (cell.deadline !== undefined && cell.deadline !== Number.POSITIVE_INFINITY)
      this.#undo.push(this.#arm(cell.deadline))
    const { place } = this.#options
    place?.adopt(cell, this.#fiber)
    this.#adopted = place !== undefined || TaskScope.adoptUnsafe(this.#owner, cell, this.#fiber)
    if (!this.#adopted && this.policy !== "cancel") ownerClosedTotal.updateUnsafe(1, context)
    // After the owner, which has no such task any more when the edge goes on.
    this.#fiber.addObserver(() => this.#end())
    this.#hear()
  }

  /** From here on the call hears of cancels. Of those in the first steps of its handler it hears now. */
  #hear(): void {
    if (!startsApartUnsafe(this.#waiter)) {
      const outer = this.#waiter.getRef(CurrentCell)
      // A cancel that says nothing comes as an interrupt as well; `abandon` asks what it means.
      const told = (reason: CancelReason) => reason._tag !== "Unknown" && this.#fromOutside(reason)
      if (outer?.reason !== undefined) told(outer.reason)
      else if (outer !== undefined) this.#undo.push(outer.listen(told))
    }
    this.#undo.push(this.#cell.listen(() => this.#notify()))
    if (this.#gone !== undefined) this.peerGone()
  }

  #arm(deadline: number): () => void {
    const fire = (): void => {
      this.#cell.cancel(deadlineReason(this.#clock, this.#options))
    }
    const { timer } = this.#options
    return timer === undefined
      ? Child.armUnsafe(this.#context, this.#clock, until(this.#clock, deadline), fire)
      : timer(deadline, fire)
  }

  stopped(reason: CancelReason): void {
    this.#cell.cancel(reason)
  }

  peerGone(): void {
    if (this.policy === "cancel") this.#cell.cancel(this.#gone as CancelReason)
    else if (typeof this.policy === "object") this.#armGrace()
    else this.#notify()
  }

  #fromOutside(reason: CancelReason): void {
    if (reason._tag === "ClientGone") this.peer.goneUnsafe(reason)
    else this.#cell.cancel(reason)
  }

  #armGrace(): void {
    const reason = this.#gone
    if (reason === undefined || typeof this.policy !== "object") return
    if (this.#observers > 0 || this.#ended || this.#disarm !== undefined) return
    const millis = Duration.toMillis(Duration.fromInputUnsafe(this.policy.grace))
    if (millis === Number.POSITIVE_INFINITY) return
    this.#disarm = Child.armUnsafe(this.#context, this.#clock, millis, () => this.#cell.cancel(reason))
  }

  #stopGrace(): void {
    this.#disarm?.()
    this.#disarm = undefined
  }

  get observe(): Effect.Effect<boolean, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => {
        if (this.#exit !== undefined || this.#ended || this.#cell.reason !== undefined) return false
        this.#observers++
        this.#stopGrace()
        return true
      }),
      (observing) =>
        Effect.sync(() => {
          if (!observing) return
          this.#observers--
          this.#armGrace()
        })
    )
  }

  /** The handler has ended, or did not begin: here it is known who takes the exit. */
  settle(exit: Exit.Exit<A, E>): Effect.Effect<void> | undefined {
    this.#exit = exit
    const unheard =
      this.#left || this.#gone !== undefined || (this.#cell.reason !== undefined && exit._tag === "Failure")
    const release = this.#release
    if (!unheard) return release
    const drop = this.#drop(exit)
    return release === undefined ? drop : Effect.andThen(drop, release)
  }

  #drop(exit: Exit.Exit<A, E>): Effect.Effect<void> {
    this.#dropped = true
    const failure = exit._tag === "Failure" ? failureOf(exit.cause) : undefined
    const cancelled = this.#cell.reason !== undefined && exit._tag === "Failure"
    if (cancelled && failure === undefined) return Effect.void
    if (!cancelled) {
      const { method, transport } = this
      Metric.withAttributes(droppedTotal, { method, transport }).updateUnsafe(1, this.#context)
    }
    const { onDropped } = this.#options
    if (onDropped !== undefined) return receive(() => onDropped(exit), this.method)
    return failure === undefined
      ? Effect.void
      : reportUnhandled("abandoned work", this.method, failure, this.#cell.reason)
  }

  #end(): void {
    this.#ended = true
    this.#cell.unlink()
    if (this.peer.ear === this) this.peer.ear = undefined
    this.#stopGrace()
    for (const undo of this.#undo) undo()
    this.#notify()
  }

  get ended(): boolean {
    return this.#ended
  }

  /** The edge can go on. */
  get ready(): boolean {
    if (this.#ended || this.#cell.reason !== undefined) return true
    return this.policy === "detach" && this.#gone !== undefined && this.#adopted
  }

  #notify(): void {
    if (!this.ready) return
    for (const ear of this.#ears.slice()) ear()
  }

  /** Calls back when the edge can go on, maybe more than once. Returns the removal. */
  listen(ear: () => void): () => void {
    this.#ears.push(ear)
    return () => {
      const at = this.#ears.indexOf(ear)
      if (at >= 0) this.#ears.splice(at, 1)
    }
  }

  get #awaitReady(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (this.ready) resume(Effect.void)
      else return Effect.sync(this.listen(() => resume(Effect.void)))
      return undefined
    })
  }

  /** What the edge is told. To be run by the edge's fiber once the call is ready. */
  conclude(): Effect.Effect<Answer<A, E>> {
    if (this.#ended) return Effect.succeed(this.#answer())
    if (this.#cell.reason === undefined || (this.#prompt && this.#adopted)) {
      this.#left = true
      if (this.#cell.reason !== undefined) this.#watch()
      return Effect.succeed(this.#early())
    }
    return Effect.map(this.#boundedEnd(), () => {
      if (this.#ended) return this.#answer()
      this.#left = true
      return this.#early()
    })
  }

  /** Waits for the end within the clean-up budget; what overruns it is named as stuck, with the handler's reason. */
  #boundedEnd(): Effect.Effect<unknown> {
    return Effect.provideService(
      boundedAt(Child.awaitEnd(this.#fiber), { name: this.method }),
      CurrentCell,
      this.#cell
    )
  }

  #watch(): void {
    // A closed owner takes no watcher; it is ending, and bounds what it has itself.
    TaskScope.spawnUnsafe(this.#owner, this.#context, this.#boundedEnd(), { name: this.method })
  }

  #early(): Answer<A, E> {
    const gone = this.#gone
    return gone === undefined
      ? { _tag: "Cancelled", reason: this.#cell.reason as CancelReason }
      : { _tag: "Dropped", reason: gone, exit: Option.none() }
  }

  #answer(): Answer<A, E> {
    return answerTo(this.#exit as Exit.Exit<A, E>, {
      gone: this.#gone,
      cancelled: this.#cell.reason,
      dropped: this.#dropped
    })
  }

  /** The edge was interrupted before it got an answer. Masked; waits as long as the answer would have taken. */
  abandon(): Effect.Effect<void> {
    if (this.#left) return Effect.void
    if (this.#ended) return this.#dropUntaken()
    this.#left = true
    return Effect.flatMap(Effect.zip(ownInterrupt, currentReason), ([cause, reason]) => {
      const told = cause === undefined ? reason : Option.orElse(fromCause(cause), () => reason)
      const says = Option.filter(told, ({ _tag }) => _tag !== "Unknown")
      // Whatever becomes of `classify`, the handler hears of the interrupt, and is waited for.
      let meant: CancelReason | undefined
      let broken: Effect.Effect<void> = Effect.void
      try {
        meant = cause === undefined ? undefined : this.#options.classify?.(cause)
      } catch (error) {
        broken = reportUnhandled("cleanup", `classify of ${this.method}`, Cause.die(error))
      }
      this.#fromOutside(Option.getOrUndefined(says) ?? meant ?? CancelReason.Unknown())
      return Effect.andThen(
        Effect.andThen(broken, this.#awaitReady),
        Effect.andThen(
          Effect.suspend(() => this.conclude()),
          Effect.suspend(() => this.#dropUntaken())
        )
      )
    })
  }

  #dropUntaken(): Effect.Effect<void> {
    return this.#exit === undefined || this.#dropped ? Effect.void : this.#drop(this.#exit)
  }
}
