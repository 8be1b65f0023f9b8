/**
 * Frames to bytes, as the carrier wants them.
 *
 * **Invariants**
 * 1. The bytes are the canonical ones: fields in order, defaults left out, the union's member always present.
 *    A frame decoded from canonical bytes encodes to the same bytes.
 * 2. No frame is copied: each is written where it goes out from; see `slab.ts`.
 */
import { type ClientFrame, drainTag, noBytes, type ServerFrame } from "./frame.ts"
import { Slab } from "./slab.ts"
import { sizeOfBytes, sizeOfInt64, sizeOfUint32, writeInt64, writeUint32 } from "./varint.ts"

const sizeOfOptional = (bytes: Buffer | undefined): number =>
  bytes === undefined ? 0 : sizeOfBytes(bytes.length)

const writeBytes = (into: Buffer, position: number, tag: number, bytes: Buffer): number => {
  into[position] = tag
  const at = writeUint32(into, position + 1, bytes.length)
  into.set(bytes, at)
  return at + bytes.length
}

const sizeOfId = (id: number): number => (id === 0 ? 0 : 1 + sizeOfInt64(id))

const writeId = (into: Buffer, position: number, id: number): number => {
  if (id === 0) return position
  into[position] = 0x08
  return writeInt64(into, position + 1, id)
}

const writeNumber = (into: Buffer, position: number, tag: number, value: number): number => {
  if (value === 0) return position
  into[position] = tag
  return writeUint32(into, position + 1, value)
}

const sizeOfNumber = (value: number): number => (value === 0 ? 0 : 1 + sizeOfUint32(value))

/** Room for the two heads (the member's and the data's) in front of a payload. */
const headRoom = 32

/** A payload shorter than this costs less to copy than to send from where it is. */
const leastLent = 4096

/** Names of methods whose bytes are kept. */
const namesKept = 256

export class Encoder extends Slab {
  private readonly names = new Map<string, Buffer>()

  /** A whole frame that carries no message payload. */
  frame(frame: ClientFrame | ServerFrame): void {
    switch (frame._tag) {
      case "NewStream":
        this.newStream(frame.id, this.nameOf(frame.method), frame.headers, frame.window, frame.revision)
        return
      case "Message":
        this.data(frame.id, frame.size, frame.data)
        return
      case "MoreData":
        this.data(frame.id, -1, frame.data)
        return
      case "HalfClose":
        this.halfClose(frame.id)
        return
      case "Cancel":
        this.cancel(frame.id, frame.reason)
        return
      case "WindowUpdate":
        this.windowUpdate(frame.id, frame.increment)
        return
      case "ResponseHeaders":
        this.member(frame.id, 0x12, frame.headers)
        return
      case "CloseStream":
        this.close(frame.id, frame.trailers, frame.status)
        return
      case "Settings":
        this.settings(frame.id, frame.revisions, frame.window)
        return
      case "Drain":
        this.empty(frame.id, drainTag)
        return
      case "Unset":
        this.unset(frame.id)
        return
    }
  }

  private nameOf(method: string): Buffer {
    const known = this.names.get(method)
    if (known !== undefined) return known
    const bytes = Buffer.from(method)
    if (this.names.size >= namesKept) this.names.clear()
    this.names.set(method, bytes)
    return bytes
  }

  private newStream(
    id: number,
    method: Buffer,
    headers: Buffer | undefined,
    window: number,
    revision: number
  ): void {
    const inner =
      (method.length === 0 ? 0 : sizeOfBytes(method.length)) +
      sizeOfOptional(headers) +
      sizeOfNumber(window) +
      sizeOfNumber(revision)
    const slab = this.reserve(sizeOfId(id) + sizeOfBytes(inner))
    const start = this.used
    let at = writeId(slab, start, id)
    slab[at] = 0x12
    at = writeUint32(slab, at + 1, inner)
    if (method.length > 0) at = writeBytes(slab, at, 0x0a, method)
    if (headers !== undefined) at = writeBytes(slab, at, 0x12, headers)
    at = writeNumber(slab, at, 0x18, window)
    at = writeNumber(slab, at, 0x20, revision)
    this.finish(start, at)
  }

  /**
   * A piece of a message: the first one with its `size`, a later one with size −1. Lent, its bytes are not copied where
   * they need not be.
   */
  data(id: number, size: number, data: Buffer, lent = false): void {
    const { length } = data
    const apart = lent && length >= leastLent && (this.lead === 5 || this.batchLead > 0)
    const slab = this.reserve(apart ? headRoom : headRoom + length, headRoom + length)
    const start = this.used
    let at = writeId(slab, start, id)
    if (size < 0) {
      slab[at] = 0x22
      at = writeUint32(slab, at + 1, length)
    } else {
      slab[at] = 0x1a
      at = writeUint32(slab, at + 1, sizeOfNumber(size) + (length === 0 ? 0 : sizeOfBytes(length)))
      at = writeNumber(slab, at, 0x08, size)
      if (length > 0) {
        slab[at] = 0x12
        at = writeUint32(slab, at + 1, length)
      }
    }
    if (apart) {
      this.finish(start, at, data)
      return
    }
    slab.set(data, at)
    this.finish(start, at + length)
  }

  /** The end of a request stream. */
  halfClose(id: number): void {
    this.empty(id, 0x2a)
  }

  private empty(id: number, tag: number): void {
    this.member(id, tag, noBytes)
  }

  /** A reason is field 1 of what is an empty message to everybody else. */
  private cancel(id: number, reason: Buffer | undefined): void {
    if (reason === undefined) {
      this.empty(id, 0x32)
      return
    }
    const slab = this.reserve(2 * headRoom + reason.length)
    const start = this.used
    const at = writeId(slab, start, id)
    slab[at] = 0x32
    this.finish(start, writeBytes(slab, writeUint32(slab, at + 1, sizeOfBytes(reason.length)), 0x0a, reason))
  }

  private member(id: number, tag: number, bytes: Buffer): void {
    const slab = this.reserve(headRoom + bytes.length)
    const start = this.used
    this.finish(start, writeBytes(slab, writeId(slab, start, id), tag, bytes))
  }

  windowUpdate(id: number, increment: number): void {
    const slab = this.reserve(headRoom)
    const start = this.used
    const at = writeId(slab, start, id)
    slab[at] = 0x38
    this.finish(start, writeUint32(slab, at + 1, increment))
  }

  private close(id: number, trailers: Buffer | undefined, status: Buffer | undefined): void {
    const inner = sizeOfOptional(trailers) + sizeOfOptional(status)
    const slab = this.reserve(headRoom + inner)
    const start = this.used
    let at = writeId(slab, start, id)
    slab[at] = 0x2a
    at = writeUint32(slab, at + 1, inner)
    if (trailers !== undefined) at = writeBytes(slab, at, 0x0a, trailers)
    if (status !== undefined) at = writeBytes(slab, at, 0x12, status)
    this.finish(start, at)
  }

  private settings(id: number, revisions: ReadonlyArray<number>, window: number): void {
    const packed = revisions.reduce((sum, revision) => sum + sizeOfUint32(revision), 0)
    const inner = (packed === 0 ? 0 : sizeOfBytes(packed)) + sizeOfNumber(window)
    const slab = this.reserve(headRoom + inner)
    const start = this.used
    let at = writeId(slab, start, id)
    slab[at] = 0x32
    at = writeUint32(slab, at + 1, inner)
    if (packed > 0) {
      slab[at] = 0x0a
      at = writeUint32(slab, at + 1, packed)
      for (const revision of revisions) at = writeUint32(slab, at, revision)
    }
    this.finish(start, writeNumber(slab, at, 0x10, window))
  }

  private unset(id: number): void {
    const slab = this.reserve(headRoom)
    const start = this.used
    this.finish(start, writeId(slab, start, id))
  }
}

/** One frame in a buffer of its own. */
export const encodeFrame = (frame: ClientFrame | ServerFrame): Buffer => {
  const encoder = new Encoder(64)
  encoder.frame(frame)
  return encoder.take()[0] ?? noBytes
}
