/**
 * A call that is made again over another tunnel when the first one turns it away because it drains, as gRPC does with a
 * stream that its server refuses: nothing has seen it.
 *
 * **Invariants**
 * 1. It moves only while its call is `untouched`: no handler had it, and nothing of an answer came. Each tunnel that
 *    turns a call away drains from then on, and is not picked again.
 * 2. What the stub did is kept until anything of an answer comes, and no more than `mostKept` bytes of it: a call that
 *    sends more first stays where it is.
 * 3. A call that was cancelled does not move. The status comes exactly once, and so does `onOver`.
 */
import type { CancelReason } from "@curfew/reason"
import { type CallCredentials, status as Code, type experimental, type Metadata } from "@grpc/grpc-js"
import type { ClientCall } from "./clientCall.ts"
import { cancelWithReason } from "./stubCall.ts"

type Call = experimental.CallStream
type Listener = Parameters<Call["start"]>[1]
type Step = (call: ClientCall) => void

/** A call that has its tunnel. */
export type PlacedCall = ClientCall | MovableCall

const mostKept = 16_384

export class MovableCall implements Call {
  private inner: ClientCall
  /** Makes the call over another tunnel; `undefined` when there is none. */
  private readonly again: () => ClientCall | undefined
  private kept: Array<Step> | undefined = []
  private bytes = 0
  /** Runs when the call is over, wherever it ended. */
  onOver: (() => void) | undefined

  constructor(first: ClientCall, again: () => ClientCall | undefined) {
    this.inner = first
    this.again = again
  }

  private readonly stay = (): void => {
    this.kept = undefined
  }

  private step(step: Step): void {
    this.kept?.push(step)
    step(this.inner)
  }

  start(metadata: Metadata, listener: Listener): void {
    const start: Step = (call) => {
      call.onOver = () => {
        if (this.inner === call) this.onOver?.()
      }
      call.start(metadata, {
        onReceiveMetadata: (headers) => {
          this.stay()
          listener.onReceiveMetadata(headers)
        },
        onReceiveMessage: (message: Buffer) => {
          this.stay()
          listener.onReceiveMessage(message)
        },
        onReceiveStatus: (status) => {
          // A deadline or a fault that was faster than the refusal is what became of the call.
          if (status.code !== Code.UNAVAILABLE || !this.moved(call)) listener.onReceiveStatus(status)
        }
      })
    }
    this.step(start)
  }

  private moved(from: ClientCall): boolean {
    const { kept } = this
    if (kept === undefined || !from.untouched) return false
    const next = this.again()
    if (next === undefined) return false
    this.inner = next
    for (const step of kept) step(next)
    return true
  }

  sendMessageWithContext(context: { callback?: (error?: Error | null) => void }, message: Buffer): void {
    this.bytes += message.length
    if (this.bytes > mostKept) this.stay()
    // Its callback has been called by the time when the call moves.
    this.kept?.push((call) => call.sendMessageWithContext({}, message))
    this.inner.sendMessageWithContext(context, message)
  }

  startRead(): void {
    this.step((call) => call.startRead())
  }

  halfClose(): void {
    this.step((call) => call.halfClose())
  }

  setCredentials(credentials: CallCredentials): void {
    this.step((call) => call.setCredentials(credentials))
  }

  cancelWithStatus(code: number, details: string): void {
    this.stay()
    this.inner.cancelWithStatus(code, details)
  }

  [cancelWithReason](code: number, details: string, reason: CancelReason): void {
    this.stay()
    this.inner[cancelWithReason](code, details, reason)
  }

  getPeer(): string {
    return this.inner.getPeer()
  }

  getCallNumber(): number {
    return this.inner.getCallNumber()
  }

  getAuthContext(): ReturnType<Call["getAuthContext"]> {
    return this.inner.getAuthContext()
  }
}
