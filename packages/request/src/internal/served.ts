/**
 * One call whose edge has no fiber of its own: the handler's fiber is the whole of it.
 *
 * It follows the rules of `Endpoint.run`. There an edge waits beside its handler; here the edge is an object that is
 * told, and what it does next runs in the last finalizer of the handler's fiber. A fiber of its own is started only
 * where the edge goes on before the handler has ended: at a cancel, and when a detached handler's peer leaves.
 *
 * Invariants
 * 1. The edge is given one answer: by the handler's last finalizer, or before that by `#early`, never by both.
 * 2. An exit that the edge no longer takes, or that nobody is there for, goes to `dropped`.
 * 3. The peer's leaving reaches the handler by the policy alone; every other cancel is a cancel of its cell.
 * 4. After a cancel the edge waits for the handler within the clean-up budget; what overruns it is stuck, and named.
 * 5. The handler's scope closes before the edge is told. Timers and the hold on the request end with the handler. A fiber
 *    that was interrupted before its first operation has run no handler, and its edge is told that.
 * 6. What the edge gives back is run masked, in the handler's fiber or in one that the owner waits for.
 */
import type { CancelReason } from "@curfew/reason"
import { type CancelCell, type Cell, CurrentCell, keepUnsafe } from "@curfew/reason/CancelCell"
import { failureOf, type Owner, TaskScope } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import * as Child from "@curfew/scope/Child"
import { receive } from "@curfew/scope/LateResult"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Answer, Call } from "../Endpoint.ts"
import type { CallInfo, OnDisconnect } from "../OnDisconnect.ts"
import type { PeerSignal } from "../PeerSignal.ts"
import type { Edge, ServedOptions } from "../Served.ts"
import { answerTo } from "./answer.ts"
import { CurrentCaller, requestKeys } from "./caller.ts"
import { CurrentCall, droppedTotal } from "./currentCall.ts"
import { deadlineReason, until } from "./deadline.ts"
import { type Ear, Peer } from "./peer.ts"
import type { Holder, RequestState } from "./requestContext.ts"

type Told = Effect.Effect<void> | undefined

/** The policy does not apply to what it fails with: the edge has been told. */
const always = (): boolean => true

const after = (first: Told, next: () => Told): Told =>
  first === undefined
    ? next()
    : Effect.andThen(
        first,
        Effect.suspend(() => next() ?? Effect.void)
      )

const withFailure = <A, E>(exit: Exit.Exit<A, E>, closed: Exit.Exit<void>): Exit.Exit<A, E> => {
  if (closed._tag === "Success") return exit
  return Exit.failCause(exit._tag === "Success" ? closed.cause : Cause.combine(exit.cause, closed.cause))
}

let keeps = false

export const makeServed = <A, E>(
  options: ServedOptions<A, E>,
  request: RequestState | undefined
): ServedCall<A, E> => {
  if (!keeps) {
    keeps = true
    const kept = { context: Context.empty(), method: "", kind: "request", transport: "", peer: new Peer() }
    keepUnsafe(new ServedCall(kept as never, undefined))
  }
  return new ServedCall(options, request)
}

export class ServedCall<A, E> implements Call, Ear {
  readonly method: string
  readonly kind: CallInfo["kind"]
  readonly transport: CallInfo["transport"]
  readonly policy: OnDisconnect
  readonly #peer: Peer
  readonly #edge: Edge<A, E>
  readonly #owner: Owner["Service"]
  readonly #context: Context.Context<never>
  readonly #clock: Clock.Clock
  readonly #request: RequestState | undefined
  /** The handler's. It closes before the edge is told; one that its edge gave, only where the handler was interrupted. */
  readonly #scope: Scope.Closeable
  readonly #scopeKept: boolean
  readonly #outer: Cell | undefined
  readonly #deadlineOrigin: "local" | "remote" | undefined
  readonly #deadline: number
  readonly #deadlineKept: boolean
  readonly #deadlineAhead: boolean
  #holder: Holder | undefined = undefined
  #cell: CancelCell | undefined = undefined
  #fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  #exit: Exit.Exit<A, E> | undefined = undefined
  /** What the call was answered with before its handler could start. */
  #over: Answer<never, never> | undefined = undefined
  #disarm: (() => void) | undefined = undefined
  #stopGrace: (() => void) | undefined = undefined
  #observers = 0
  #starting = true
  #begun = false
  #ended = false
  /** The edge has gone on without the handler's exit. */
  #left = false
  /** The cancel, which is told once, is told by this call itself. */
  #cancelling = false
  /** After a cancel: its end is waited for. */
  #awaited = false
  #dropped = false

  constructor(options: ServedOptions<A, E>, request: RequestState | undefined) {
    this.method = options.method
    this.kind = options.kind
    this.transport = options.transport
    this.policy = options.policy
    this.#peer = options.peer as Peer
    this.#edge = options.edge
    this.#owner = options.owner
    this.#request = request
    this.#clock = options.clock ?? Context.get(options.context, Clock.Clock)
    this.#deadline = options.deadline ?? Number.POSITIVE_INFINITY
    this.#deadlineKept = options.deadlineKept === true
    this.#deadlineAhead = options.deadlineAhead === true
    let context = options.context as Context.Context<never>
    if (request !== undefined) {
      context = Context.addUnsafe(context, requestKeys.request, request)
      context = Context.add(context, CurrentCaller, request)
    }
    context = Context.add(context, CurrentCall, this)
    this.#context = context
    this.#scope = options.scope ?? Scope.makeUnsafe()
    this.#scopeKept = options.scope !== undefined
    this.#outer = options.outer
    this.#deadlineOrigin = options.deadlineOrigin
    this.#peer.ear = this
  }

  get peer(): PeerSignal {
    return this.#peer
  }

  /** An answer at a cancel goes out at once: the handler was not written to be interrupted. */
  get #prompt(): boolean {
    return this.policy === "shield" || this.policy === "detach"
  }

  get #gone(): CancelReason | undefined {
    return this.#peer.goneOnce.value
  }

  // ── the start ──────────────────────────────────────────────────────────────────────────────────────────────

  /** False when the owner takes no work: nothing of the call has run then. */
  start(handler: Effect.Effect<A, E>): boolean {
    const work = Effect.onExitPrimitive(
      Effect.withFiber((fiber: Fiber.Fiber<unknown, unknown>) => this.#begin(fiber, handler)),
      (exit) => (this.#keeps(exit) ? this.#settle(exit) : this.#closed(exit))
    )
    const { method: name } = this
    const inside = Context.add(this.#context, Scope.Scope, this.#scope) as Context.Context<never>
    const task = TaskScope.spawnUnsafe(this.#owner, inside, work, {
      kind: "call",
      name,
      observed: always,
      outer: this.#outer
    })
    this.#starting = false
    if (task === undefined) return false
    // A handler that ended at once has needed no timer.
    if (this.#begun && !this.#ended) this.#arm()
    if (!this.#begun) task.fiber.addObserver(() => this.#runApart(this.#neverBegun()))
    return true
  }

  #begin(fiber: Fiber.Fiber<unknown, unknown>, handler: Effect.Effect<A, E>): Effect.Effect<A, E> {
    this.#begun = true
    this.#fiber = fiber
    const cell = fiber.getRef(CurrentCell) as CancelCell
    this.#cell = cell
    this.#over = this.#overBefore()
    // It is the answer already; the exit of what did not start is told to nobody.
    if (this.#over !== undefined) return Effect.void as never
    this.#holder = this.#request?.holdUnsafe(this.method)
    cell.listen((reason) => this.#cancelled(reason))
    cell.deadline = this.#deadline
    if (!this.#starting) this.#arm()
    if (this.#gone !== undefined) this.peerGone(this.#gone)
    return handler
  }

  #arm(): void {
    const at = this.#deadline
    if (at === Number.POSITIVE_INFINITY || this.#over !== undefined || this.#disarm !== undefined) return
    // A transport whose peer has gone has done with the call, which may go on.
    if (this.#deadlineKept && this.#gone === undefined) return
    const fire = (): void => this.#cancel(this.#deadlineReason)
    this.#disarm = Child.armUnsafe(this.#context, this.#clock, until(this.#clock, at), fire)
  }

  get #deadlineReason(): CancelReason {
    return deadlineReason(this.#clock, {
      method: this.method,
      deadline: this.#deadline,
      deadlineOrigin: this.#deadlineOrigin ?? "remote"
    })
  }

  #overBefore(): Answer<never, never> | undefined {
    const { goneOnce, stopReason } = this.#peer
    if (stopReason !== undefined) return { _tag: "Cancelled", reason: stopReason }
    if (this.policy === "cancel" && goneOnce.value !== undefined) {
      return { _tag: "Dropped", reason: goneOnce.value, exit: Option.none() }
    }
    if (this.#deadline === Number.POSITIVE_INFINITY || (this.#deadlineAhead && this.#starting))
      return undefined
    return until(this.#clock, this.#deadline) <= 0
      ? { _tag: "Cancelled", reason: this.#deadlineReason }
      : undefined
  }

  #neverBegun(): Told {
    if (this.#begun) return undefined
    this.#begun = true
    this.#ended = true
    return this.#edge.neverStarted()
  }

  // ── what happens to it ─────────────────────────────────────────────────────────────────────────────────────

  peerGone(reason: CancelReason): void {
    if (this.#cell === undefined || this.#ended) return
    if (this.#deadlineKept && this.policy !== "cancel") this.#arm()
    if (this.policy === "cancel") this.#cancel(reason)
    else if (typeof this.policy === "object") this.#armGrace()
    else if (this.policy === "detach") this.#early()
  }

  stopped(reason: CancelReason): void {
    this.#cancel(reason)
  }

  /** Most handlers end while they are told of their cancel: what waits for the others is not made before that. */
  #cancel(reason: CancelReason): void {
    const cell = this.#cell
    if (cell === undefined || cell.reason !== undefined) return
    this.#cancelling = true
    try {
      cell.cancel(reason)
    } finally {
      this.#awaitEnd()
    }
  }

  #cancelled(reason: CancelReason): void {
    if (this.#ended) return
    this.#edge.cancelled(reason)
    if (this.#prompt) this.#early()
    if (!this.#cancelling) this.#awaitEnd()
  }

  /** Answers within the clean-up budget, whenever the handler ends. */
  #awaitEnd(): void {
    if (this.#ended || this.#awaited) return
    this.#awaited = true
    this.#runApart(
      Effect.andThen(
        this.#boundedEnd,
        Effect.suspend(() => (this.#ended ? Effect.void : (this.#answerEarly() ?? Effect.void)))
      )
    )
  }

  /** Waits for the end within the clean-up budget; what overruns it is named as stuck, with the handler's reason. */
  get #boundedEnd(): Effect.Effect<unknown> {
    return Effect.provideService(
      boundedAt(Child.awaitEnd(this.#fiber as Fiber.Fiber<unknown, unknown>), { name: this.method }),
      CurrentCell,
      this.#cell
    )
  }

  /** The edge goes on without the handler. */
  #early(): void {
    this.#runApart(this.#answerEarly())
  }

  #answerEarly(): Told {
    if (this.#left || this.#ended) return undefined
    this.#left = true
    const gone = this.#gone
    return this.#edge.answer(
      gone === undefined
        ? { _tag: "Cancelled", reason: this.#cell?.reason as CancelReason }
        : { _tag: "Dropped", reason: gone, exit: Option.none() },
      true
    )
  }

  /** Under the owner, or, where that takes no work any more, beside the handler that it waits for itself. */
  #runApart(work: Told): void {
    if (work === undefined) return
    const masked = Effect.uninterruptible(work)
    const context = this.#context
    const task = TaskScope.spawnUnsafe(this.#owner, context, masked, { name: this.method, observed: always })
    if (task === undefined) Child.startUnsafe(context, masked)
  }

  #armGrace(): void {
    const reason = this.#gone
    if (reason === undefined || typeof this.policy !== "object") return
    if (this.#observers > 0 || this.#ended || this.#stopGrace !== undefined) return
    const millis = Duration.toMillis(Duration.fromInputUnsafe(this.policy.grace))
    if (millis === Number.POSITIVE_INFINITY) return
    this.#stopGrace = Child.armUnsafe(this.#context, this.#clock, millis, () => this.#cancel(reason))
  }

  #endGrace(): void {
    this.#stopGrace?.()
    this.#stopGrace = undefined
  }

  get observe(): Effect.Effect<boolean, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => {
        if (this.#exit !== undefined || this.#ended || this.#cell?.reason !== undefined) return false
        this.#observers++
        this.#endGrace()
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

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────────────

  /** There is nothing in the scope, or its edge closes it. */
  #keeps(exit: Exit.Exit<A, E>): boolean {
    if (this.#scope.state._tag === "Empty") return true
    return this.#scopeKept && (exit._tag === "Success" || !Cause.hasInterruptsOnly(exit.cause))
  }

  /** The scope's finalizers run first; what they fail with belongs to the handler's exit. */
  #closed(exit: Exit.Exit<A, E>): Effect.Effect<void> {
    return Effect.flatMap(
      Effect.exit(Scope.close(this.#scope, exit)),
      (closed) => this.#settle(withFailure(exit, closed)) ?? Effect.void
    )
  }

  /** The handler's last finalizer: the edge goes on from here, unless it has gone on already. */
  #settle(exit: Exit.Exit<A, E>): Told {
    if (!this.#begun) return this.#neverBegun()
    this.#ended = true
    this.#disarm?.()
    this.#endGrace()
    const over = this.#over
    if (over !== undefined) return this.#edge.answer(over, false)
    this.#exit = exit
    const cancelled = this.#cell?.reason
    const gone = this.#gone
    const unheard = this.#left || gone !== undefined || (cancelled !== undefined && exit._tag === "Failure")
    return after(
      after(unheard ? this.#drop(exit, cancelled) : undefined, () => this.#release()),
      () => {
        if (this.#left) return undefined
        this.#left = true
        return this.#edge.answer(answerTo(exit, { gone, cancelled, dropped: this.#dropped }), false)
      }
    )
  }

  #release(): Told {
    const holder = this.#holder
    return holder === undefined ? undefined : this.#request?.releaseUnsafe(holder)
  }

  #drop(exit: Exit.Exit<A, E>, cancelled: CancelReason | undefined): Told {
    this.#dropped = true
    const failure = exit._tag === "Failure" ? failureOf(exit.cause) : undefined
    const byCancel = cancelled !== undefined && exit._tag === "Failure"
    if (byCancel && failure === undefined) return undefined
    if (!byCancel) {
      const { method, transport } = this
      Metric.withAttributes(droppedTotal, { method, transport }).updateUnsafe(1, this.#context)
    }
    return receive(() => this.#edge.dropped(exit), this.method)
  }
}
