/**
 * Takes the body of an HTTP/2 response apart: gRPC messages, and the frames in them.
 *
 * **Invariants**
 * 1. Frames come out whole and in order, however the bytes were cut up on the way, each as soon as its last byte is
 *    there: a batch does not wait for its end.
 * 2. A frame that lies whole in one chunk is a view of it. One that is cut is put together in a buffer of its own, once.
 * 3. No more is set aside than `limit` bytes. What is no body of this kind is told apart, and nothing is read after it.
 */

/** Why a body cannot be read on. */
export type Unreadable = "compressed" | "too large" | "cut off"

const prefix = 5
const lengthBytes = 4

type Unit = "prefix" | "length" | "frame"

export class MessageReader {
  private readonly batched: boolean
  private readonly limit: number
  private readonly onFrame: (frame: Buffer) => void
  private unit: Unit = "prefix"
  private need = prefix
  /** Bytes of the open batch that belong to no frame yet. */
  private rest = 0
  /** Where a unit is put together that is cut, and how much of it is there. */
  private part: Buffer
  private filled = 0
  private readonly head = Buffer.alloc(prefix)

  constructor(batched: boolean, limit: number, onFrame: (frame: Buffer) => void) {
    this.batched = batched
    this.limit = limit
    this.onFrame = onFrame
    this.part = this.head
  }

  /** Between two messages, where a body may end. */
  get whole(): boolean {
    return this.unit === "prefix" && this.filled === 0
  }

  /** Takes the next bytes; gives what is wrong with them, if something is. */
  feed(chunk: Buffer): Unreadable | undefined {
    let at = 0
    while (true) {
      const { filled, need } = this
      const there = chunk.length - at
      let bytes = chunk
      let start = at
      if (filled === 0 && there >= need) at += need
      else {
        if (filled === 0) {
          if (there === 0) return undefined
          this.part = this.unit === "frame" ? Buffer.allocUnsafe(need) : this.head
        }
        const taken = Math.min(need - filled, there)
        chunk.copy(this.part, filled, at, at + taken)
        at += taken
        this.filled += taken
        if (this.filled < need) return undefined
        bytes = this.part
        start = 0
        this.filled = 0
      }
      const wrong = this.step(bytes, start, need)
      if (wrong !== undefined) return wrong
    }
  }

  private step(bytes: Buffer, start: number, size: number): Unreadable | undefined {
    switch (this.unit) {
      case "prefix":
        return this.message(bytes[start], bytes.readUInt32BE(start + 1))
      case "length":
        return this.frame(bytes.readUInt32BE(start))
      case "frame":
        this.next()
        this.onFrame(bytes.subarray(start, start + size))
        return undefined
    }
  }

  private message(flag: number | undefined, length: number): Unreadable | undefined {
    if (flag !== 0) return "compressed"
    if (length > this.limit) return "too large"
    if (this.batched) {
      this.rest = length
      this.next()
    } else this.expect("frame", length)
    return undefined
  }

  private frame(length: number): Unreadable | undefined {
    if (length > this.rest) return "cut off"
    this.rest -= length
    this.expect("frame", length)
    return undefined
  }

  /** Goes on behind a frame, or behind the head of a batch. */
  private next(): void {
    if (this.rest === 0) this.expect("prefix", prefix)
    else {
      // A batch that ends inside a length is cut off: the frame is longer than what is left of it then.
      this.rest -= Math.min(this.rest, lengthBytes)
      this.expect("length", lengthBytes)
    }
  }

  private expect(unit: Unit, need: number): void {
    this.unit = unit
    this.need = need
  }
}
