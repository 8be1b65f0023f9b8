/**
 * What the carriers share: how an outer call ended, and the two ways to write to it.
 *
 * **Invariants**
 * 1. A call ends once, and whoever waits for that is told once.
 * 2. A write calls back once: when it was taken, or when the call has ended. Streams forget the callbacks of what was
 *    cancelled, so the end completes a pending write too.
 */
import * as Effect from "effect/Effect"
import { afterTurn } from "./bridge.ts"
import type { Carrier, CarrierEnd } from "./carrier.ts"

/** Remembers how a call ended, and who waits for it. */
export class Ending {
  value: CarrierEnd | undefined
  private readonly waiters = new Set<() => void>()

  settle(end: CarrierEnd): boolean {
    if (this.value !== undefined) return false
    this.value = end
    for (const waiter of this.waiters) waiter()
    this.waiters.clear()
    return true
  }

  wait(waiter: () => void): () => void {
    this.waiters.add(waiter)
    return () => this.waiters.delete(waiter)
  }

  readonly awaited: Effect.Effect<void> = Effect.callback<void>((resume) => {
    if (this.value !== undefined) return resume(Effect.void)
    const forget = this.wait(() => resume(Effect.void))
    return Effect.sync(forget)
  })
}

/** Completes when it is called, or with the call. */
const once = (ending: Ending, done: () => void): (() => void) => {
  let waiting = true
  const finished = (): void => {
    if (!waiting) return
    waiting = false
    forget()
    done()
  }
  const forget = ending.wait(finished)
  return finished
}

/** The part of a call of grpc-js that both ends have. */
interface MessageWriter {
  readonly write: (bytes: Buffer, callback?: () => void) => boolean
}

/** Writes each piece as a message of its own. */
export const writeMessages =
  (call: MessageWriter, ending: Ending): Carrier["write"] =>
  (messages, done) => {
    if (ending.value !== undefined) {
      done()
      return
    }
    const finished = once(ending, done)
    const last = messages.length - 1
    for (let index = 0; index < last; index++) call.write(messages[index] as Buffer)
    call.write(messages[last] as Buffer, finished)
  }

/** The part of an HTTP/2 stream that both ends have. */
interface ByteWriter extends MessageWriter {
  readonly cork: () => void
  readonly uncork: () => void
  readonly writableEnded: boolean
  readonly destroyed: boolean
}

/** Writes all pieces as one run of bytes. */
export const writeRun =
  (stream: ByteWriter, ending: Ending): Carrier["write"] =>
  (bytes, done) => {
    if (ending.value !== undefined || stream.writableEnded || stream.destroyed) {
      afterTurn(done)
      return
    }
    const finished = once(ending, done)
    const last = bytes.length - 1
    if (last > 0) stream.cork()
    for (let index = 0; index < last; index++) stream.write(bytes[index] as Buffer)
    stream.write(bytes[last] as Buffer, finished)
    if (last > 0) stream.uncork()
  }
