/**
 * One call, from the channel's callbacks to what a fiber waits for.
 *
 * How it ends stands in `ending.ts`, and what it has received in `reading.ts`.
 *
 * Invariants
 * 1. At most one message is being written; the next write waits for the callback of the last. A status completes a write
 *    whose callback never comes.
 * 2. Nothing is sent after the outcome, and a status ends the request stream at once.
 * 3. Nothing that a callback of the user's throws goes up into the channel.
 * 4. A call whose requests and responses do not stream is one operation of its caller's fiber: it is made and waited for
 *    there, its status resumes the fiber, and whatever ends it otherwise runs the same release as a stream's.
 */
import { CancelReason, toCause } from "@curfew/reason"
import { cancelledAboveUnsafe } from "@curfew/reason/CancelCell"
import { Instant } from "@curfew/scope"
import { armUnsafe } from "@curfew/scope/Child"
import { type Metadata, type StatusObject, status as statusCodes } from "@grpc/grpc-js"
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { GrpcError } from "../../GrpcError.ts"
import { connect, keepsDeadline, Serialized, serialize } from "./channelCall.ts"
import { type CallDeadline, remaining, wireDeadline } from "./deadline.ts"
import { answered, left } from "./ending.ts"
import { Reading } from "./reading.ts"
import type { Sink } from "./requests.ts"
import { Writing } from "./writing.ts"

interface Listener<Response> {
  readonly onReceiveMetadata: (headers: Metadata) => void
  readonly onReceiveMessage: (message: Response) => void
  readonly onReceiveStatus: (status: StatusObject) => void
}

const noContext = {}

export class ClientCall<Request, Response, E>
  extends Reading<Response, E>
  implements Listener<Response>, Sink<Request, E>
{
  private writer: (() => void) | undefined
  /** Resumes the caller of a call that is one operation. */
  private resume: ((answer: Effect.Effect<Response, GrpcError | E>) => void) | undefined

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
      this.outcome = Exit.failCause(toCause(above))
      this.telemetry.cancelled(above)
      return
    }
    this.deadline = deadline
    this.clock = fiber.getRef(Clock.Clock)
    const now = deadline.now ?? Instant.nowOf(this.clock)
    const millis = remaining(deadline, now)
    if (millis <= 0) {
      this.tooLate()
      return
    }
    const { interceptors, method } = this.outgoing
    let message: unknown = request?.message
    // Without interceptors nobody changes the message any more, so a bad one need not open a call.
    if (request !== undefined && interceptors.length === 0) {
      const bytes = serialize(method, message)
      if (typeof bytes === "string") {
        this.refuse(GrpcError.make("INTERNAL", bytes, { method: this.path }))
        return
      }
      message = new Serialized(bytes)
    }
    try {
      this.connect(metadata, millis)
      if (request !== undefined) {
        this.call?.sendMessageWithContext(noContext, message)
        this.call?.halfClose()
      }
    } catch (error) {
      this.unconnected(error)
      return
    }
    if (deadline.own !== Number.POSITIVE_INFINITY && this.outcome === undefined && !this.deadlineKept) {
      const delay = deadline.own - now
      this.disarm = armUnsafe(fiber.context, this.clock, delay, () => this.expire())
    }
  }

  private connect(metadata: Metadata, millis: number): void {
    const { channel, credentials, interceptors, method } = this.outgoing
    const until = wireDeadline(millis)
    const call = connect(channel, method, interceptors, until, credentials, this)
    this.call = call
    this.deadlineKept = until !== Number.POSITIVE_INFINITY && keepsDeadline(call, this.clock as Clock.Clock)
    this.ended = false
    call.start(metadata, this)
    this.read()
  }

  onReceiveMetadata(headers: Metadata): void {
    this.onWire = true
    const { onHeaders } = this.outgoing
    if (onHeaders !== undefined) this.attempt(() => onHeaders(headers))
  }

  private unconnected(error: unknown): void {
    const said = error instanceof Error ? error.message : String(error)
    const details = `The channel took no call (${said}): make the client again, and use it inside the scope that it was made in.`
    const failure = GrpcError.make("UNAVAILABLE", details, { method: this.path })
    // An interceptor may throw after the call was made below it.
    if (this.ended) {
      this.refuse(failure)
      return
    }
    this.telemetry.completed(failure.code)
    this.abort(Effect.fail(failure), statusCodes.CANCELLED, details, left)
  }

  // ── what the channel tells ─────────────────────────────────────────────────────────────────────────────────

  private attempt(callback: () => void): void {
    try {
      callback()
    } catch (error) {
      this.telemetry.cancelled(left)
      this.abort(Effect.die(error), statusCodes.CANCELLED, "The caller failed", left)
    }
  }

  onReceiveStatus(status: StatusObject): void {
    if (this.ended) return
    this.ended = true
    this.disarm?.()
    this.disarm = undefined
    if (this.outcome === undefined && this.isOwnDeadline(status)) {
      this.forget()
      this.outcome = this.expired
    } else if (this.outcome === undefined) {
      this.outcome = this.outcomeOf(status)
      const { onTrailers } = this.outgoing
      if (onTrailers !== undefined) this.attempt(() => onTrailers(status.metadata, status))
    }
    this.requests?.cancel(answered)
    this.writer?.()
    this.tell()
  }

  private outcomeOf(status: StatusObject): Effect.Effect<void, GrpcError> {
    if (status.code === statusCodes.DEADLINE_EXCEEDED && this.scopes) {
      this.telemetry.cancelled(CancelReason.Deadline({ at: 0, origin: "local" }))
      return this.scopeEnds
    }
    if (status.code === statusCodes.OK && this.single && this.received === 0) {
      const details = `The server answered ${this.path} with OK and no message: its definition says that it answers with one, so compare the definitions of both ends.`
      this.telemetry.completed(statusCodes.UNIMPLEMENTED)
      return Effect.fail(
        GrpcError.make("UNIMPLEMENTED", details, { method: this.path, metadata: status.metadata })
      )
    }
    this.telemetry.completed(status.code)
    if (status.code === statusCodes.OK) return Exit.void
    // Whoever cancelled rarely asks what came of it, and an error's stack costs more than the rest of the end.
    return this.reason === undefined
      ? Exit.fail(GrpcError.fromStatus(status, this.path))
      : Effect.suspend(() => Exit.fail(GrpcError.fromStatus(status, this.path)))
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
      this.resume = resume
      this.answerAsked()
      return Effect.suspend(() => this.release)
    })
  }

  protected tell(): void {
    this.wake()
    if (this.ended) this.ender?.()
    this.answerAsked()
  }

  private answerAsked(): void {
    const outcome = this.outcome
    const resume = this.resume
    if (resume === undefined || outcome === undefined) return
    this.resume = undefined
    if (this.ended && this.reason === undefined && Exit.isExit(outcome)) {
      this.finish()
      resume(
        outcome._tag === "Success"
          ? Exit.succeed(this.buffer[0] as Response)
          : Exit.failCause(outcome.cause as Cause.Cause<GrpcError | E>)
      )
    } else {
      const answer = Effect.map(outcome, () => this.buffer[0] as Response)
      resume(Effect.onExitPrimitive(answer, () => this.release))
    }
  }

  // ── writing ────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Sends messages, each when the channel has taken the one before, and waits until it has taken the last. Ends by an
   * interrupt when nothing may be sent.
   */
  send(messages: ReadonlyArray<Request>): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (this.outcome !== undefined) return resume(Effect.interrupt)
      const over = (end: Effect.Effect<void>): void => {
        writing.stop()
        if (this.writer === writer) this.writer = undefined
        resume(end)
      }
      const writer = (): void => over(this.outcome === undefined ? Effect.void : Effect.interrupt)
      const writing = new Writing<Request>(
        messages,
        (context, message) => this.call?.sendMessageWithContext(context, message),
        (thrown) => {
          this.onWire = true
          if (thrown === undefined) writer()
          else over(Effect.die(thrown.error))
        }
      )
      this.writer = writer
      writing.go()
      return Effect.sync(() => {
        writing.stop()
        if (this.writer === writer) this.writer = undefined
      })
    })
  }

  halfCloseUnsafe(): void {
    if (this.outcome === undefined) this.call?.halfClose()
  }

  /** The request stream failed, died, or was interrupted from elsewhere. False when the outcome stood already. */
  requestsFailed(cause: Cause.Cause<E>): boolean {
    if (this.outcome !== undefined || this.reason !== undefined) return false
    const reason = CancelReason.SiblingFailed({ cause })
    this.telemetry.cancelled(reason)
    this.abort(Effect.failCause(cause), statusCodes.CANCELLED, "The request stream failed", reason)
    return true
  }
}
