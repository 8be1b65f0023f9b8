/**
 * What a call has received, and who reads it.
 *
 * Invariants
 * 1. At most one message is being read beyond `readAhead`.
 * 2. A pull takes messages in the operation that gives them to the fiber: an interrupted pull has taken none. The first
 *    message of a turn wakes its reader at once; those behind it are handed on together, when the turn is over or as many
 *    have come as are read ahead.
 * 3. A method with one answer has one: a second ends the call.
 */
import { status as statusCodes } from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { GrpcError } from "../../GrpcError.ts"
import { afterTurn } from "../turns.ts"
import { Ending, left } from "./ending.ts"

const none: Array<never> = []

/** Messages that are kept for a reader that is slower than its server: as many as a Node stream of objects keeps. */
const readAhead = 16

export abstract class Reading<Response, E> extends Ending<E> {
  /** Messages that wait for their reader. */
  protected buffer: Array<Response> = none
  protected received = 0
  private reading = false
  /** The reader has had a message in this turn, and gets the others at its end. */
  private gathering = false
  private reader: ((answer: Effect.Effect<never, GrpcError | E | Cause.Done<void>>) => void) | undefined

  protected get single(): boolean {
    return !this.outgoing.method.responseStream
  }

  protected forget(): void {
    this.buffer = none
  }

  onReceiveMessage(message: Response): void {
    this.reading = false
    if (this.outcome !== undefined) return
    this.received++
    if (this.single && this.received > 1) {
      const details = `The server sent more than one message to ${this.path}: its definition says that it answers with one, so compare the definitions of both ends.`
      const error = GrpcError.make("UNIMPLEMENTED", details, { method: this.path })
      this.telemetry.completed(error.code)
      this.abort(Effect.fail(error), statusCodes.UNIMPLEMENTED, details, left)
      return
    }
    if (this.buffer === none) this.buffer = [message]
    else this.buffer.push(message)
    this.read()
    if (!this.gathering) this.gather()
    else if (this.buffer.length >= readAhead) this.wake()
  }

  private gather(): void {
    if (this.reader === undefined || this.single) return
    this.gathering = true
    afterTurn(() => {
      this.gathering = false
      if (this.buffer.length > 0) this.wake()
    })
    this.wake()
  }

  protected read(): void {
    if (this.reading || this.ended || this.outcome !== undefined || this.buffer.length >= readAhead) return
    this.reading = true
    this.call?.startRead()
  }

  /**
   * The messages that have come, at least one, or the end; to be called in the operation that hands them on. A pull that
   * was interrupted is woken in vain.
   */
  take(): Effect.Effect<readonly [Response, ...Array<Response>], GrpcError | E | Cause.Done<void>> {
    if (this.buffer.length > 0) {
      const taken = this.buffer as [Response, ...Array<Response>]
      this.buffer = none
      this.read()
      return Exit.succeed(taken)
    }
    if (this.outcome !== undefined) return Effect.flatMap(this.outcome, () => Cause.done())
    return Effect.callback((resume) => {
      // Whoever comes here may have been held up on the way, and what it looked for has come meanwhile.
      if (this.buffer.length > 0 || this.outcome !== undefined) resume(this.taken)
      else this.reader = resume as never
    })
  }

  private get taken(): Effect.Effect<
    readonly [Response, ...Array<Response>],
    GrpcError | E | Cause.Done<void>
  > {
    return Effect.suspend(() => this.take())
  }

  protected wake(): void {
    const reader = this.reader
    if (reader === undefined) return
    // One message alone is no answer yet.
    if (this.single && this.outcome === undefined) return
    this.reader = undefined
    reader((this.single ? this.answer : this.taken) as never)
  }

  /** The one answer. */
  get answer(): Effect.Effect<Response, GrpcError | E> {
    return Effect.suspend(() => {
      if (this.outcome !== undefined) return Effect.map(this.outcome, () => this.buffer[0] as Response)
      return Effect.callback((resume) => {
        if (this.outcome !== undefined) resume(this.answer)
        else this.reader = resume as never
      })
    })
  }
}
