/**
 * One call, from the channel's callbacks to what a fiber waits for.
 *
 * Invariants
 * 1. `outcome` is set once: by the status, by the call's own deadline, by the request stream, or by a start that
 *    failed. It is what the caller gets when it has read what came before it.
 * 2. Whoever leaves before the status came cancels the call, once, and waits for the status within the clean-up budget.
 * 3. At most one message is being read beyond `readAhead`, and at most one is being written; the next write waits for
 *    the callback of the last. A status completes a write whose callback never comes.
 * 4. A pull takes messages in the operation that gives them to the fiber: an interrupted pull has taken none. The first
 *    message of a turn wakes its reader at once; those behind it are handed on together, when the turn is over or as many
 *    have come as are read ahead.
 * 5. Nothing is sent after the outcome, and a status ends the request stream at once.
 * 6. A cancel that comes in the turn of the start is said twice: grpc-js makes the call on the wire a few microtasks
 *    after its start, whether or not it was cancelled meanwhile, and only a cancel after that ends it at the server.
 * 7. Nothing that a callback of the user's throws goes up into the channel.
 * 8. A call whose requests and responses do not stream is one operation of its caller's fiber: it is made and waited for
 *    there, its status resumes the fiber, and whatever ends it otherwise runs the same release as a stream's.
 */
import { CancelReason, currentReason, describe, toCause } from "@curfew/reason"
import { type CancelCell, cancelledAboveUnsafe } from "@curfew/reason/CancelCell"
import { Instant } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import { armUnsafe } from "@curfew/scope/Child"
import {
  type CallOptions as ChannelCallOptions,
  type ChannelInterface,
  type Interceptor,
  type Metadata,
  type StatusObject,
  status as statusCodes
} from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { GrpcError } from "../../GrpcError.ts"
import { afterTurn } from "../turns.ts"
import {
  type AnyMethod,
  connect,
  type InterceptingCall,
  keepsDeadline,
  Serialized,
  serialize,
  type Why
} from "./channelCall.ts"
import { type CallDeadline, isScopes, jitter, remaining, wireDeadline } from "./deadline.ts"
import type { RequestPump, Sink } from "./requests.ts"
import type { Telemetry } from "./telemetry.ts"
import { Writing } from "./writing.ts"

const none: Array<never> = []

/** Messages that are kept for a reader that is slower than its server: as many as a Node stream of objects keeps. */
const readAhead = 16

export interface Outgoing {
  readonly method: AnyMethod
  readonly channel: ChannelInterface
  readonly interceptors: ReadonlyArray<Interceptor>
  readonly credentials: ChannelCallOptions["credentials"] | undefined
  readonly onHeaders: ((headers: Metadata) => void) | undefined
  readonly onTrailers: ((trailers: Metadata, status: StatusObject) => void) | undefined
}

interface Listener<Response> {
  readonly onReceiveMetadata: (headers: Metadata) => void
  readonly onReceiveMessage: (message: Response) => void
  readonly onReceiveStatus: (status: StatusObject) => void
}

const noContext = {}

const expired = "The deadline of the call has passed."

const left: CancelReason = CancelReason.Requested({ message: "the caller left before the call had ended" })
const answered: CancelReason = CancelReason.Requested({ message: "the call has ended" })

export class ClientCall<Request, Response, E> implements Listener<Response>, Why, Sink<Request, E> {
  readonly #outgoing: Outgoing
  readonly #telemetry: Telemetry
  /** Why the call is being cancelled. */
  reason: CancelReason | undefined
  /** What sends the request stream, where there is one. */
  requests: RequestPump<Request, E> | undefined
  #call: InterceptingCall | undefined
  #deadline: CallDeadline | undefined
  #disarm: (() => void) | undefined
  /** The channel's call ends itself at the deadline, so there is no timer here. */
  #deadlineKept = false
  #clock: Clock.Clock | undefined
  /** Messages that wait for their reader. */
  #buffer: Array<Response> = none
  #received = 0
  #reading = false
  /** The reader has had a message in this turn, and gets the others at its end. */
  #gathering = false
  #outcome: Effect.Effect<void, GrpcError | E> | undefined
  /** No status is to come: it has come, or the call was never made. */
  #ended = true
  /** Cancels on the wire. */
  #say: (() => void) | undefined
  /** The channel has told something, so the call is on the wire. */
  #onWire = false
  #reader: ((answer: Effect.Effect<never, GrpcError | E | Cause.Done<void>>) => void) | undefined
  #writer: (() => void) | undefined
  #ender: (() => void) | undefined
  /** Resumes the caller of a call that is one operation. */
  #resume: ((answer: Effect.Effect<Response, GrpcError | E>) => void) | undefined

  constructor(outgoing: Outgoing, telemetry: Telemetry) {
    this.#outgoing = outgoing
    this.#telemetry = telemetry
  }

  get #path(): string {
    return this.#outgoing.method.path
  }

  get #single(): boolean {
    return !this.#outgoing.method.responseStream
  }

  /** The outcome stands. */
  get over(): boolean {
    return this.#outcome !== undefined
  }

  // ── the start ──────────────────────────────────────────────────────────────────────────────────────────────

  /** Makes the call. `request` is the one message of a method whose requests do not stream. */
  start(
    fiber: Fiber.Fiber<unknown, unknown>,
    deadline: CallDeadline | GrpcError,
    metadata: Metadata | GrpcError,
    request: { readonly message: Request } | undefined
  ): void {
    if (deadline instanceof GrpcError) {
      this.refuse(deadline)
      return
    }
    if (metadata instanceof GrpcError) {
      this.refuse(metadata)
      return
    }
    const above = cancelledAboveUnsafe(fiber)
    if (above !== undefined) {
      this.#outcome = Exit.failCause(toCause(above))
      this.#telemetry.cancelled(above)
      return
    }
    this.#deadline = deadline
    this.#clock = fiber.getRef(Clock.Clock)
    const now = deadline.now ?? Instant.nowOf(this.#clock)
    const millis = remaining(deadline, now)
    if (millis <= 0) {
      this.#tooLate()
      return
    }
    const { interceptors, method } = this.#outgoing
    let message: unknown = request?.message
    // Without interceptors nobody changes the message any more, so a bad one need not open a call.
    if (request !== undefined && interceptors.length === 0) {
      const bytes = serialize(method, message)
      if (typeof bytes === "string") {
        this.refuse(GrpcError.make("INTERNAL", bytes, { method: this.#path }))
        return
      }
      message = new Serialized(bytes)
    }
    try {
      this.#connect(metadata, millis)
      if (request !== undefined) {
        this.#call?.sendMessageWithContext(noContext, message)
        this.#call?.halfClose()
      }
    } catch (error) {
      this.#unconnected(error)
      return
    }
    if (deadline.own !== Number.POSITIVE_INFINITY && this.#outcome === undefined && !this.#deadlineKept) {
      const delay = deadline.own - now
      this.#disarm = armUnsafe(fiber.context, this.#clock, delay, () => this.#expire())
    }
  }

  #connect(metadata: Metadata, millis: number): void {
    const { channel, credentials, interceptors, method } = this.#outgoing
    const until = wireDeadline(millis)
    const call = connect(channel, method, interceptors, until, credentials, this)
    this.#call = call
    this.#deadlineKept = until !== Number.POSITIVE_INFINITY && keepsDeadline(call, this.#clock as Clock.Clock)
    this.#ended = false
    call.start(metadata, this)
    this.#read()
  }

  onReceiveMetadata(headers: Metadata): void {
    this.#onWire = true
    const { onHeaders } = this.#outgoing
    if (onHeaders !== undefined) this.#attempt(() => onHeaders(headers))
  }

  /** The call is over before it began. */
  refuse(error: GrpcError): void {
    this.#outcome ??= Exit.fail(error)
    this.#telemetry.completed(error.code)
  }

  #tooLate(): void {
    if (this.#scopes) {
      this.#telemetry.cancelled(CancelReason.Deadline({ at: 0, origin: "local" }))
      this.#outcome = this.#scopeEnds
      return
    }
    const details = "The deadline had passed before the call was made."
    this.refuse(GrpcError.make("DEADLINE_EXCEEDED", details, { method: this.#path }))
  }

  #unconnected(error: unknown): void {
    const said = error instanceof Error ? error.message : String(error)
    const details = `The channel took no call (${said}): make the client again, and use it inside the scope that it was made in.`
    const failure = GrpcError.make("UNAVAILABLE", details, { method: this.#path })
    // An interceptor may throw after the call was made below it.
    if (this.#ended) {
      this.refuse(failure)
      return
    }
    this.#telemetry.completed(failure.code)
    this.#abort(Effect.fail(failure), statusCodes.CANCELLED, details, left)
  }

  // ── deadlines ──────────────────────────────────────────────────────────────────────────────────────────────

  get #scopes(): boolean {
    const { cell } = this.#deadline ?? {}
    return cell !== undefined && isScopes(this.#deadline as CallDeadline, this.#now)
  }

  get #now(): number {
    return Instant.nowOf(this.#clock as Clock.Clock)
  }

  /** The scope's deadline is the scope's to tell: its cancel is due, and comes from its own timer. */
  get #scopeEnds(): Effect.Effect<never, GrpcError> {
    const cell = (this.#deadline as CallDeadline).cell as CancelCell
    const cancelled = Effect.callback<never>((resume) => {
      const interrupt = (reason: CancelReason) => resume(Effect.failCause(toCause(reason)))
      if (cell.reason !== undefined) return interrupt(cell.reason)
      return Effect.sync(cell.listen(interrupt))
    })
    // A fiber that outlived the scope hears no cancel any more.
    return Effect.timeoutOrElse(cancelled, {
      duration: "1 second",
      orElse: () =>
        Effect.fail(
          GrpcError.make("DEADLINE_EXCEEDED", "The deadline of the surrounding scope has passed.", {
            method: this.#path
          })
        )
    })
  }

  /** The call's own deadline has passed. */
  get #expired(): Effect.Effect<never, GrpcError> {
    this.#telemetry.completed(statusCodes.DEADLINE_EXCEEDED)
    return Exit.fail(GrpcError.make("DEADLINE_EXCEEDED", expired, { method: this.#path }))
  }

  /** The channel said so, in the place of a timer here. */
  #isOwnDeadline({ code }: StatusObject): boolean {
    const { own } = this.#deadline as CallDeadline
    return code === statusCodes.DEADLINE_EXCEEDED && this.#deadlineKept && own - this.#now <= jitter
  }

  #expire(): void {
    this.#disarm = undefined
    this.#abort(
      this.#expired,
      statusCodes.DEADLINE_EXCEEDED,
      expired,
      CancelReason.Deadline({
        at: Math.round((this.#clock as Clock.Clock).currentTimeMillisUnsafe()),
        origin: "local",
        scope: this.#path
      })
    )
  }

  // ── what the channel tells ─────────────────────────────────────────────────────────────────────────────────

  #attempt(callback: () => void): void {
    try {
      callback()
    } catch (error) {
      this.#telemetry.cancelled(left)
      this.#abort(Effect.die(error), statusCodes.CANCELLED, "The caller failed", left)
    }
  }

  onReceiveMessage(message: Response): void {
    this.#reading = false
    if (this.#outcome !== undefined) return
    this.#received++
    if (this.#single && this.#received > 1) {
      const details = `The server sent more than one message to ${this.#path}: its definition says that it answers with one, so compare the definitions of both ends.`
      const error = GrpcError.make("UNIMPLEMENTED", details, { method: this.#path })
      this.#telemetry.completed(error.code)
      this.#abort(Effect.fail(error), statusCodes.UNIMPLEMENTED, details, left)
      return
    }
    if (this.#buffer === none) this.#buffer = [message]
    else this.#buffer.push(message)
    this.#read()
    if (!this.#gathering) this.#gather()
    else if (this.#buffer.length >= readAhead) this.#wake()
  }

  #gather(): void {
    if (this.#reader === undefined || this.#single) return
    this.#gathering = true
    afterTurn(() => {
      this.#gathering = false
      if (this.#buffer.length > 0) this.#wake()
    })
    this.#wake()
  }

  onReceiveStatus(status: StatusObject): void {
    if (this.#ended) return
    this.#ended = true
    this.#disarm?.()
    this.#disarm = undefined
    if (this.#outcome === undefined && this.#isOwnDeadline(status)) {
      this.#buffer = none
      this.#outcome = this.#expired
    } else if (this.#outcome === undefined) {
      this.#outcome = this.#outcomeOf(status)
      const { onTrailers } = this.#outgoing
      if (onTrailers !== undefined) this.#attempt(() => onTrailers(status.metadata, status))
    }
    this.requests?.cancel(answered)
    this.#writer?.()
    this.#wake()
    this.#ender?.()
    this.#tell()
  }

  #outcomeOf(status: StatusObject): Effect.Effect<void, GrpcError> {
    if (status.code === statusCodes.DEADLINE_EXCEEDED && this.#scopes) {
      this.#telemetry.cancelled(CancelReason.Deadline({ at: 0, origin: "local" }))
      return this.#scopeEnds
    }
    if (status.code === statusCodes.OK && this.#single && this.#received === 0) {
      const details = `The server answered ${this.#path} with OK and no message: its definition says that it answers with one, so compare the definitions of both ends.`
      this.#telemetry.completed(statusCodes.UNIMPLEMENTED)
      return Effect.fail(
        GrpcError.make("UNIMPLEMENTED", details, { method: this.#path, metadata: status.metadata })
      )
    }
    this.#telemetry.completed(status.code)
    if (status.code === statusCodes.OK) return Exit.void
    // Whoever cancelled rarely asks what came of it, and an error's stack costs more than the rest of the end.
    return this.reason === undefined
      ? Exit.fail(GrpcError.fromStatus(status, this.#path))
      : Effect.suspend(() => Exit.fail(GrpcError.fromStatus(status, this.#path)))
  }

  // ── reading ────────────────────────────────────────────────────────────────────────────────────────────────

  #read(): void {
    if (this.#reading || this.#ended || this.#outcome !== undefined || this.#buffer.length >= readAhead)
      return
    this.#reading = true
    this.#call?.startRead()
  }

  /**
   * The messages that have come, at least one, or the end; to be called in the operation that hands them on. A pull that
   * was interrupted is woken in vain.
   */
  take(): Effect.Effect<readonly [Response, ...Array<Response>], GrpcError | E | Cause.Done<void>> {
    if (this.#buffer.length > 0) {
      const taken = this.#buffer as [Response, ...Array<Response>]
      this.#buffer = none
      this.#read()
      return Exit.succeed(taken)
    }
    if (this.#outcome !== undefined) return Effect.flatMap(this.#outcome, () => Cause.done())
    return Effect.callback((resume) => {
      // Whoever comes here may have been held up on the way, and what it looked for has come meanwhile.
      if (this.#buffer.length > 0 || this.#outcome !== undefined) resume(this.#taken)
      else this.#reader = resume as never
    })
  }

  get #taken(): Effect.Effect<readonly [Response, ...Array<Response>], GrpcError | E | Cause.Done<void>> {
    return Effect.suspend(() => this.take())
  }

  #wake(): void {
    const reader = this.#reader
    if (reader === undefined) return
    // One message alone is no answer yet.
    if (this.#single && this.#outcome === undefined) return
    this.#reader = undefined
    reader((this.#single ? this.answer : this.#taken) as never)
  }

  /** The one answer. */
  get answer(): Effect.Effect<Response, GrpcError | E> {
    return Effect.suspend(() => {
      if (this.#outcome !== undefined) return Effect.map(this.#outcome, () => this.#buffer[0] as Response)
      return Effect.callback((resume) => {
        if (this.#outcome !== undefined) resume(this.answer)
        else this.#reader = resume as never
      })
    })
  }

  // ── a call that is one operation ───────────────────────────────────────────────────────────────────────────

  /** Makes the call and waits for its one answer; no interrupt falls in between. */
  ask(
    fiber: Fiber.Fiber<unknown, unknown>,
    deadline: CallDeadline | GrpcError,
    metadata: Metadata | GrpcError,
    message: Request
  ): Effect.Effect<Response, GrpcError | E> {
    return Effect.callback((resume) => {
      this.start(fiber, deadline, metadata, { message })
      this.#resume = resume
      this.#tell()
      return Effect.suspend(() => this.release)
    })
  }

  #tell(): void {
    const outcome = this.#outcome
    const resume = this.#resume
    if (resume === undefined || outcome === undefined) return
    this.#resume = undefined
    if (this.#ended && this.reason === undefined && Exit.isExit(outcome)) {
      this.#finish()
      resume(
        outcome._tag === "Success"
          ? Exit.succeed(this.#buffer[0] as Response)
          : Exit.failCause(outcome.cause as Cause.Cause<GrpcError | E>)
      )
    } else {
      const answer = Effect.map(outcome, () => this.#buffer[0] as Response)
      resume(Effect.onExitPrimitive(answer, () => this.release))
    }
  }

  /** What follows every end but a status that came on its own: the request stream ends before the call does. */
  get release(): Effect.Effect<void> {
    const { requests } = this
    const end = requests === undefined ? this.#end : Effect.andThen(requests.stop, this.#end)
    return Effect.andThen(this.#leave, end)
  }

  // ── writing ────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Sends messages, each when the channel has taken the one before, and waits until it has taken the last. Ends by an
   * interrupt when nothing may be sent.
   */
  send(messages: ReadonlyArray<Request>): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (this.#outcome !== undefined) return resume(Effect.interrupt)
      const over = (end: Effect.Effect<void>): void => {
        writing.stop()
        if (this.#writer === writer) this.#writer = undefined
        resume(end)
      }
      const writer = (): void => over(this.#outcome === undefined ? Effect.void : Effect.interrupt)
      const writing = new Writing<Request>(
        messages,
        (context, message) => this.#call?.sendMessageWithContext(context, message),
        (thrown) => {
          this.#onWire = true
          if (thrown === undefined) writer()
          else over(Effect.die(thrown.error))
        }
      )
      this.#writer = writer
      writing.go()
      return Effect.sync(() => {
        writing.stop()
        if (this.#writer === writer) this.#writer = undefined
      })
    })
  }

  halfCloseUnsafe(): void {
    if (this.#outcome === undefined) this.#call?.halfClose()
  }

  /** The request stream failed, died, or was interrupted from elsewhere. False when the outcome stood already. */
  requestsFailed(cause: Cause.Cause<E>): boolean {
    if (this.#outcome !== undefined || this.reason !== undefined) return false
    const reason = CancelReason.SiblingFailed({ cause })
    this.#telemetry.cancelled(reason)
    this.#abort(Effect.failCause(cause), statusCodes.CANCELLED, "The request stream failed", reason)
    return true
  }

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────────────

  #abort(
    outcome: Effect.Effect<void, GrpcError | E>,
    code: number,
    details: string,
    reason: CancelReason
  ): void {
    if (this.#ended) {
      // The status is there: only what the caller itself threw still comes before it.
      this.#outcome = outcome
      return
    }
    if (this.#outcome !== undefined) return
    this.#outcome = outcome
    this.#buffer = none
    this.#cancel(code, details, reason)
    this.requests?.cancel(answered)
    this.#wake()
    this.#tell()
  }

  #cancel(code: number, details: string, reason: CancelReason): void {
    if (this.#ended || this.reason !== undefined) return
    this.#disarm?.()
    this.#disarm = undefined
    this.reason = reason
    this.#say = () => this.#call?.cancelWithStatus(code, details)
    this.#say()
  }

  /** Cancels what has not ended. */
  get #leave(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#ended) return Effect.void
      return Effect.map(currentReason, (given) => {
        const reason = Option.getOrElse(given, () => left)
        this.#telemetry.cancelled(reason)
        this.#cancel(statusCodes.CANCELLED, describe(reason), reason)
      })
    })
  }

  /** Waits for the status. */
  get #end(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const finished = Effect.sync(() => this.#finish())
      if (this.reason === undefined) return finished
      const status = Effect.callback<void>((resume) => {
        if (this.#ended) return resume(Effect.void)
        this.#ender = () => resume(Effect.void)
      })
      // It mostly comes in this turn, before a limit would be worth its timer.
      const soon = Effect.callback<void>((resume) => {
        if (this.#ended) return resume(Effect.void)
        this.#ender = () => resume(Effect.void)
        afterTurn(() => resume(Effect.void))
      })
      const limited = Effect.flatMap(Effect.uninterruptible(soon), () =>
        this.#ended ? Effect.void : boundedAt(status, { name: `end of ${this.#path}` })
      )
      return Effect.andThen(Effect.andThen(limited, this.#again), finished)
    })
  }

  /** Says the cancel once more, in a later turn. */
  get #again(): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.#onWire
        ? Effect.void
        : Effect.andThen(
            Effect.yieldNow,
            Effect.sync(() => this.#say?.())
          )
    )
  }

  #finish(): void {
    this.#disarm?.()
    this.#disarm = undefined
    this.#telemetry.finished()
  }
}
