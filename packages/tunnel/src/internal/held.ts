/**
 * The payload bytes that a tunnel holds for all its streams together: what came and waits for a reader, and what was
 * handed over and waits to be sent.
 *
 * **Invariants**
 * 1. `bytes` is the sum over the streams of what their assemblers and their outbounds hold.
 * 2. Above the limit the stream that holds most ends, and gives back what it held at once, until the sum is below it:
 *    many small streams do not pay for a large one.
 */
import type { CancelReason } from "@curfew/reason"
import type { Assembler } from "./assembler.ts"
import { type Listed, StreamList } from "./streams.ts"

/** What a stream tells and does about the bytes that it holds. */
export interface Holder extends Listed {
  readonly held: number
  /** It has something to send, and no credit for it. */
  readonly stalled: boolean
  /** Ends the stream for what it holds, and lets go of that. */
  readonly relinquish: (details: string) => void
  /** Ends the stream with its tunnel, for the reason; what is over already stays as it is. */
  readonly close: (reason: CancelReason | undefined) => void
  /** Takes its place in the live tree, for somebody who looks at it. */
  readonly show: () => void
}

export class Held {
  bytes = 0
  /** Payload bytes over the whole life of the tunnel. */
  sent = 0
  received = 0
  readonly limit: number
  /** Room that is taken for messages that are still coming. */
  private aside = 0
  /** Puts messages together for the next stream that gets one: an idle one needs nothing of its own for that. */
  spare: Assembler | undefined
  /** Every stream, from before it can hold anything until it is forgotten. */
  readonly holders = new StreamList<Holder>()

  constructor(limit = Number.POSITIVE_INFINITY) {
    this.limit = limit
  }

  /** Takes room for a message of which little has come; false when too much room is taken already. */
  setAside(bytes: number): boolean {
    if (this.aside + bytes > this.limit / 4) return false
    this.aside += bytes
    return true
  }

  giveBack(bytes: number): void {
    this.aside -= bytes
  }

  /** How many streams wait for credit. */
  get stalled(): number {
    let count = 0
    for (const holder of this.holders) if (holder.stalled) count++
    return count
  }

  /** Rule `bytes-held`. */
  check(): void {
    while (this.bytes > this.limit) {
      let most: Holder | undefined
      for (const holder of this.holders) if (holder.held > (most?.held ?? 0)) most = holder
      if (most === undefined) return
      most.relinquish(`The tunnel holds more than ${this.limit} bytes, and this call most of them`)
    }
  }
}
