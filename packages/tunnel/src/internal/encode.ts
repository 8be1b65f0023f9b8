/**
 * Frames to bytes.
 *
 * **Invariants**
 * 1. The bytes are the canonical ones: fields in order, defaults left out, the union's member always present.
 *    A frame decoded from canonical bytes encodes to the same bytes.
 * 2. A frame is written once, into the slab of the batch it goes out with. `take` hands out views of that slab;
 *    they stay valid until `reset`, which the writer calls once the carrier is done with the batch.
 */
import { type ClientFrame, drainTag, noBytes, type ServerFrame } from "./frame.ts"
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

export class Encoder {
  private slab: Buffer
  private used = 0
  private frames: Array<Buffer> = []
  /** Bytes encoded since the last `take`. */
  size = 0

  constructor(capacity = 4096) {
    this.slab = Buffer.allocUnsafeSlow(capacity)
  }

  /** The frames encoded since the last `take`. */
  take(): ReadonlyArray<Buffer> {
    const frames = this.frames
    this.frames = []
    this.size = 0
    return frames
  }

  /** Lets the slab be written again: nobody reads the frames that were taken any more. */
  reset(): void {
    this.used = 0
  }

  private reserve(length: number): Buffer {
    if (this.used + length > this.slab.length) {
      this.slab = Buffer.allocUnsafeSlow(
        Math.min(Math.max(this.slab.length * 2, length), Math.max(length, 1 << 18))
      )
      this.used = 0
    }
    return this.slab
  }

  private finish(start: number, end: number): void {
    this.frames.push(this.slab.subarray(start, end))
    this.used = end
    this.size += end - start
  }

  /** A whole frame that carries no message payload. */
  frame(frame: ClientFrame | ServerFrame): void {
    switch (frame._tag) {
      case "NewStream":
        this.newStream(frame.id, Buffer.from(frame.method), frame.headers, frame.window, frame.revision)
        return
      case "Message":
        this.data(frame.id, frame.size, frame.data)
        return
      case "MoreData":
        this.data(frame.id, -1, frame.data)
        return
      case "HalfClose":
        this.empty(frame.id, 0x2a)
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

  /** A piece of a message: the first one with its `size`, a later one with `size` −1. */
  data(id: number, size: number, data: Buffer): void {
    const slab = this.reserve(headRoom + data.length)
    const start = this.used
    let at = writeId(slab, start, id)
    if (size < 0) at = writeBytes(slab, at, 0x22, data)
    else {
      slab[at] = 0x1a
      at = writeUint32(slab, at + 1, sizeOfNumber(size) + (data.length === 0 ? 0 : sizeOfBytes(data.length)))
      at = writeNumber(slab, at, 0x08, size)
      if (data.length > 0) at = writeBytes(slab, at, 0x12, data)
    }
    this.finish(start, at)
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

  private windowUpdate(id: number, increment: number): void {
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
