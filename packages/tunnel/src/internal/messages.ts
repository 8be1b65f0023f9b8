/**
 * Takes the body of an HTTP/2 response apart: gRPC messages, and the frames in them.
 *
 * **Invariants**
 * 1. Frames come out whole and in order, however the bytes were cut up on the way, each as soon as its last byte is
 *    there: a batch does not wait for its end.
 * 2. A frame that lies whole in one chunk is a part of it. One that is cut is put together in a buffer of its own, once,
 *    unless it is a long piece of a message: that one is handed out in shorter ones as they come, which mean the same.
 * 3. No more is set aside than `limit` bytes. What is no body of this kind is told apart, and nothing is read after it.
 */

import type { OnFrame } from "./batch.ts"
import { Reader, Truncated } from "./varint.ts"

/** Why a body cannot be read on. */
export type Unreadable = "compressed" | "too large" | "cut off"

const prefix = 5
const lengthBytes = 4

/** Gets a piece of a message: the first one with its `size`, a later one with size −1. */
export type OnPiece = (id: number, size: number, data: Buffer) => void

/** Where it goes on inside a frame that is handed out in pieces, the rest is a unit of its own. */
type Unit = "prefix" | "length" | "frame" | "rest"

/** A frame below this is rather put together. */
const longFrame = 8192

export class MessageReader {
  private readonly batched: boolean
  private readonly limit: number
  private readonly onFrame: OnFrame
  private readonly onPiece: OnPiece
  /** The stream whose frame is handed out in pieces. */
  private stream = 0
  private unit: Unit = "prefix"
  private need = prefix
  /** Bytes of the open batch that belong to no frame yet. */
  private rest = 0
  /** Where a unit is put together that is cut, and how much of it is there. */
  private part: Buffer
  private filled = 0
  private readonly head = Buffer.alloc(prefix)

  constructor(batched: boolean, limit: number, onFrame: OnFrame, onPiece: OnPiece) {
    this.batched = batched
    this.limit = limit
    this.onFrame = onFrame
    this.onPiece = onPiece
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
      if (this.unit === "rest") {
        if (there === 0) return undefined
        at = this.piece(chunk, at, -1, need)
        continue
      }
      let bytes = chunk
      let start = at
      if (filled === 0 && there >= need) at += need
      else {
        if (filled === 0) {
          if (there === 0) return undefined
          if (this.unit === "frame" && need >= longFrame) {
            const head = pieceHead(chunk, at, need)
            if (head !== undefined) {
              this.stream = head.id
              at = this.piece(chunk, head.start, head.size, at + need - head.start)
              continue
            }
          }
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

  /** Hands out what is there of a piece, of which so much is to come; gives where it goes on. */
  private piece(chunk: Buffer, start: number, size: number, left: number): number {
    const end = Math.min(start + left, chunk.length)
    const rest = left - (end - start)
    if (rest === 0) this.next()
    else this.expect("rest", rest)
    this.onPiece(this.stream, size, chunk.subarray(start, end))
    return end
  }

  private step(bytes: Buffer, start: number, size: number): Unreadable | undefined {
    switch (this.unit) {
      case "prefix":
        return this.message(bytes[start], bytes.readUInt32BE(start + 1))
      case "length":
        return this.frame(bytes.readUInt32BE(start))
      case "frame":
      case "rest":
        this.next()
        this.onFrame(bytes, start, start + size)
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

/**
 * Reads the head of a piece of a message, of a frame whose bytes are not all there; nothing of frames of other kinds, nor
 * of pieces that are written in another way than usual, nor where the head is not all there.
 */
const pieceHead = (
  chunk: Buffer,
  from: number,
  length: number
): { readonly id: number; readonly size: number; readonly start: number } | undefined => {
  const reader = new Reader(chunk, from)
  const end = from + length
  try {
    if (reader.uint32() !== idTag) return undefined
    const id = reader.int64()
    if (id === undefined) return undefined
    const tag = reader.uint32()
    const inner = reader.uint32()
    if (reader.position + inner !== end) return undefined
    if (tag === moreTag) return { id, size: -1, start: reader.position }
    if (tag !== messageTag || reader.uint32() !== sizeTag) return undefined
    const size = reader.uint32()
    if (reader.uint32() !== dataTag) return undefined
    const data = reader.uint32()
    return reader.position + data === end ? { id, size, start: reader.position } : undefined
  } catch (error) {
    if (error instanceof Truncated) return undefined
    throw error
  }
}

const idTag = 0x08
const messageTag = 0x1a
const moreTag = 0x22
const sizeTag = 0x08
const dataTag = 0x12
