/**
 * The memory of a batch: where its frames stand, and what stands in front of each.
 *
 * **Invariants**
 * 1. A frame is written once, into the slab of the batch it goes out with. `take` hands out views of that slab;
 *    they stay valid until `reset`, which the writer calls once the carrier is done with the batch.
 * 2. A lent payload is not copied where the framing is a run of bytes: it stands among the views that `take` hands out,
 *    and whoever lent it leaves it alone until `reset`.
 * 3. Batches stay at or below `batchLimit` unless they are a single frame, so a receiver's limit on messages is not
 *    passed.
 */
import { batchLimit, type Framing } from "./batch.ts"

/** Bytes in front of each frame, and in front of each batch. */
const leads: Readonly<Record<Framing, readonly [frame: number, batch: number]>> = {
  frames: [0, 0],
  batches: [4, 0],
  messages: [5, 0],
  "batches as messages": [4, 5]
}

export class Slab {
  private slab: Buffer
  protected used = 0
  /** Where the run of bytes begins that has not been handed out. */
  private from = 0
  private chunks: Array<Buffer> = []
  /** Where the length of the open batch will stand, or -1. */
  private head = -1
  /** Bytes of the open batch. */
  private batch = 0
  protected readonly lead: number
  protected readonly batchLead: number
  /** Bytes encoded since the last `take`. */
  size = 0

  constructor(capacity = 4096, framing: Framing = "frames") {
    this.slab = Buffer.allocUnsafeSlow(capacity)
    ;[this.lead, this.batchLead] = leads[framing]
  }

  /** What was encoded since the last `take`, in pieces: frames, batches, or any pieces of a run of bytes. */
  take(): ReadonlyArray<Buffer> {
    this.closeBatch()
    this.closeRun()
    const chunks = this.chunks
    this.chunks = []
    this.size = 0
    return chunks
  }

  /** Lets the slab be written again: nobody reads what was taken any more. */
  reset(): void {
    this.used = 0
    this.from = 0
  }

  private closeRun(): void {
    if (this.used > this.from) this.chunks.push(this.slab.subarray(this.from, this.used))
    this.from = this.used
  }

  private closeBatch(): void {
    if (this.batch > 0) {
      if (this.batchLead > 0) writePrefix(this.slab, this.head, this.batch)
      else if (this.lead === 4) this.closeRun()
    }
    this.batch = 0
  }

  /** Begins a frame of at most so many bytes, of which so many come to stand in the slab. */
  protected reserve(length: number, whole = length): Buffer {
    const needed = this.batchLead + this.lead + length
    if (this.used + needed > this.slab.length) {
      this.closeBatch()
      this.closeRun()
      this.slab = Buffer.allocUnsafeSlow(
        Math.min(Math.max(this.slab.length * 2, needed), Math.max(needed, 1 << 18))
      )
      this.used = 0
      this.from = 0
    }
    if (this.lead === 4) {
      if (this.batch + 4 + whole > batchLimit) this.closeBatch()
      if (this.batch === 0 && this.batchLead > 0) {
        this.head = this.used
        this.used += this.batchLead
      }
    }
    this.used += this.lead
    return this.slab
  }

  /** Ends a frame whose own bytes stand in the slab from `start` to `end`, before a lent payload. */
  protected finish(start: number, end: number, lent: Buffer | undefined = undefined): void {
    const { lead, slab } = this
    const length = end - start + (lent === undefined ? 0 : lent.length)
    this.used = end
    this.size += length
    if (lead === 0) {
      // A frame may have no bytes, and is a frame all the same.
      this.chunks.push(slab.subarray(start, end))
      this.from = end
      return
    }
    if (lead === 4) {
      writeUint32BigEnd(slab, start - 4, length)
      this.batch += 4 + length
    } else writePrefix(slab, start - 5, length)
    if (lent === undefined) return
    this.closeRun()
    this.chunks.push(lent)
  }
}

const writeUint32BigEnd = (into: Buffer, position: number, value: number): void => {
  into[position] = value >>> 24
  into[position + 1] = (value >>> 16) & 0xff
  into[position + 2] = (value >>> 8) & 0xff
  into[position + 3] = value & 0xff
}

/** What stands before a gRPC message: it is not compressed, and so long. */
const writePrefix = (into: Buffer, position: number, length: number): void => {
  into[position] = 0
  writeUint32BigEnd(into, position + 1, length)
}
