/**
 * Protobuf's wire primitives over a `Buffer`: a cursor that reads and the arithmetic for writing.
 *
 * **Invariants**
 * 1. A reader never reads past its `end`; what is missing raises `Truncated`, the only exception here.
 * 2. An `int64` outside the safe integers reads as `undefined`, never as a rounded number.
 * 3. A `uint32` field keeps the low 32 bits of its varint, as protobuf prescribes.
 */

/** Raised by a `Reader` on bytes that are not protobuf; the decoders turn it into a `Malformed` frame. */
export class Truncated extends Error {
  override readonly name = "Truncated"
}

const two32 = 0x1_0000_0000

const noView: Buffer = Buffer.alloc(0)

export class Reader {
  position: number
  private bytes: Buffer
  private end: number
  private low = 0
  private high = 0

  constructor(bytes: Buffer, start = 0, end: number = bytes.length) {
    this.bytes = bytes
    this.position = start
    this.end = end
  }

  /** Begins anew with other bytes. */
  over(bytes: Buffer, start = 0, end: number = bytes.length): this {
    this.bytes = bytes
    this.position = start
    this.end = end
    return this
  }

  get done(): boolean {
    return this.position >= this.end
  }

  private varint(): void {
    let low = 0
    let high = 0
    for (let index = 0; index < 10; index++) {
      if (this.position >= this.end) throw new Truncated("a number is cut off")
      const byte = this.bytes[this.position++] as number
      const shift = index * 7
      if (shift < 28) low |= (byte & 0x7f) << shift
      else if (shift === 28) {
        low |= (byte & 0x7f) << 28
        high |= (byte & 0x7f) >> 4
      } else high |= (byte & 0x7f) << (shift - 32)
      if (byte < 0x80) {
        this.low = low >>> 0
        this.high = high
        return
      }
    }
    throw new Truncated("a number is longer than ten bytes")
  }

  uint32(): number {
    // Tags and most lengths are one byte.
    const byte = this.bytes[this.position] as number
    if (this.position < this.end && byte < 0x80) {
      this.position++
      return byte
    }
    this.varint()
    return this.low
  }

  int32(): number {
    this.varint()
    return this.low | 0
  }

  int64(): number | undefined {
    this.varint()
    if (this.high === 0) return this.low
    const value = this.high * two32 + this.low
    return Number.isSafeInteger(value) ? value : undefined
  }

  /** Stands at the start of the next length-delimited field from here on, and gives its end. */
  field(): number {
    const length = this.uint32()
    if (length > this.end - this.position) throw new Truncated("a field is longer than what holds it")
    return this.position + length
  }

  /** Reads on inside the next length-delimited field. Gives what `leave` takes to come back behind it. */
  enter(): number {
    const outer = this.end
    this.end = this.field()
    return outer
  }

  /** Stands behind the field that was entered. */
  leave(outer: number): void {
    this.position = this.end
    this.end = outer
  }

  /** A view of the next length-delimited field. */
  slice(): Buffer {
    const end = this.field()
    const start = this.position
    this.position = end
    return start === end ? noView : this.bytes.subarray(start, end)
  }

  /** A view of everything up to the end. */
  rest(): Buffer {
    const start = this.position
    this.position = this.end
    return start === this.end ? noView : this.bytes.subarray(start, this.end)
  }

  /** The next length-delimited field, one character for each byte; `likely` itself, where it is the same. */
  latin1(likely: string): string {
    const end = this.field()
    const start = this.position
    this.position = end
    return this.holds(likely, start, end) ? likely : this.bytes.toString("latin1", start, end)
  }

  /** Whether these characters stand there. How long that takes says nothing of how many of them do. */
  private holds(text: string, start: number, end: number): boolean {
    const { bytes } = this
    const { length } = text
    if (end - start !== length) return false
    let difference = 0
    for (let index = 0; index < length; index++)
      difference |= (bytes[start + index] as number) ^ text.charCodeAt(index)
    return difference === 0
  }

  /** Where a table of 256 has the length-delimited field that comes next: fields that are the same stand in one place. */
  get slot(): number {
    const { bytes, position } = this
    const length = bytes[position] as number
    const last = position + length
    if (length === 0 || last >= this.end) return 0
    const middle = bytes[position + 1 + (length >> 1)] as number
    return (
      (length * 31 + (bytes[position + 1] as number) * 7 + middle * 17 + (bytes[last] as number) * 13) & 255
    )
  }

  skip(wireType: number): void {
    if (wireType === 0) this.varint()
    else if (wireType === 2) this.position = this.field()
    else if (wireType === 1 || wireType === 5) {
      this.position += wireType === 1 ? 8 : 4
      if (this.position > this.end) throw new Truncated("a fixed-width field is cut off")
    } else throw new Truncated(`wire type ${wireType} is unknown`)
  }
}

/** How many bytes a `uint32` takes as a varint. */
export const sizeOfUint32 = (value: number): number =>
  value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : value < 0x1000_0000 ? 4 : 5

/** How many bytes a length-delimited field takes, behind a tag of one byte. */
export const sizeOfBytes = (length: number): number => 1 + sizeOfUint32(length) + length

/** How many bytes an `int64` that is a safe integer takes as a varint. */
export const sizeOfInt64 = (value: number): number => {
  if (value < 0) return 10
  if (value < two32) return sizeOfUint32(value)
  let size = 1
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size++
  return size
}

/** Writes a `uint32` and returns the position after it. */
export const writeUint32 = (into: Buffer, position: number, value: number): number => {
  let rest = value
  let at = position
  while (rest >= 0x80) {
    into[at++] = (rest & 0x7f) | 0x80
    rest >>>= 7
  }
  into[at++] = rest
  return at
}

/** Writes a safe integer as an `int64` and returns the position after it. */
export const writeInt64 = (into: Buffer, position: number, value: number): number => {
  let at = position
  if (value >= 0) {
    if (value < two32) return writeUint32(into, at, value)
    let rest = value
    while (rest >= 0x80) {
      into[at++] = (rest % 0x80) | 0x80
      rest = Math.floor(rest / 0x80)
    }
    into[at++] = rest
    return at
  }
  let rest = BigInt.asUintN(64, BigInt(value))
  while (rest >= 0x80n) {
    into[at++] = Number(rest & 0x7fn) | 0x80
    rest >>= 7n
  }
  into[at++] = Number(rest)
  return at
}
