/**
 * The recorded scenarios of `test/vectors`: what travelled over tunnels of the Go implementation, as data, and each
 * stream of it in words that do not depend on how messages are cut into frames.
 */
import { readdirSync, readFileSync } from "node:fs"
import { decodeClientFrame, decodeServerFrame } from "../../src/internal/decode.ts"
import type { ClientFrame, Malformed, ServerFrame } from "../../src/internal/frame.ts"
import { MetadataProblem } from "../../src/internal/metadata.ts"
import { metadataFromWire } from "../../src/internal/metadataFromWire.ts"
import { statusFromWire } from "../../src/internal/rpcStatus.ts"

export interface RecordedFrame {
  readonly from: "client" | "server"
  readonly bytes: Buffer
  readonly says: string
}

export type Item =
  | { readonly _tag: "Frame"; readonly frame: RecordedFrame }
  | { readonly _tag: "Note"; readonly note: string }
  | { readonly _tag: "Outer"; readonly outer: string; readonly with: string }
  | { readonly _tag: "Result"; readonly result: string; readonly value: string }

/** One tunnel of a scenario. */
export interface Recording {
  readonly direction: "forward" | "reverse"
  /** The end that dialled sent the header that asks for settings. */
  readonly asked: boolean
  /** The end that was dialled sent it back; `undefined` when it sent no headers. */
  readonly answered: boolean | undefined
  readonly items: ReadonlyArray<Item>
}

export interface Scenario {
  readonly name: string
  readonly about: string
  readonly tunnels: ReadonlyArray<Recording>
  /** Everything, in order, whichever tunnel it belongs to. */
  readonly items: ReadonlyArray<Item>
}

interface Line {
  readonly scenario?: string
  readonly about?: string
  readonly open?: "forward" | "reverse"
  readonly asked?: boolean
  readonly answered?: boolean | null
  readonly from?: "client" | "server"
  readonly hex?: string
  readonly head?: string
  readonly fill?: string
  readonly tail?: string
  readonly length?: number
  readonly says?: string
  readonly note?: string
  readonly outer?: string
  readonly with?: string
  readonly result?: string
  readonly value?: string
}

const folder = new URL("../vectors/", import.meta.url)

/** A long frame was recorded as its two ends; between them stands one byte, again and again. */
const bytesOf = ({ fill = "00", head = "", hex, length = 0, tail = "" }: Line): Buffer => {
  if (hex !== undefined) return Buffer.from(hex, "hex")
  const bytes = Buffer.alloc(length, Number.parseInt(fill, 16))
  bytes.set(Buffer.from(head, "hex"))
  bytes.set(Buffer.from(tail, "hex"), length - tail.length / 2)
  return bytes
}

const itemOf = (line: Line): Item | undefined => {
  if (line.from !== undefined)
    return { _tag: "Frame", frame: { from: line.from, bytes: bytesOf(line), says: line.says ?? "" } }
  if (line.note !== undefined) return { _tag: "Note", note: line.note }
  if (line.outer !== undefined) return { _tag: "Outer", outer: line.outer, with: line.with ?? "" }
  if (line.result !== undefined) return { _tag: "Result", result: line.result, value: line.value ?? "" }
  return undefined
}

const read = (file: string): Scenario => {
  const lines = readFileSync(new URL(file, folder), "utf8").trimEnd().split("\n")
  const tunnels: Array<Recording & { readonly items: Array<Item> }> = []
  const items: Array<Item> = []
  let about = ""
  for (const text of lines) {
    const line: Line = JSON.parse(text)
    if (line.about !== undefined) about = line.about
    if (line.open !== undefined)
      tunnels.push({
        direction: line.open,
        asked: line.asked === true,
        answered: line.answered ?? undefined,
        items: []
      })
    const item = itemOf(line)
    if (item === undefined) continue
    items.push(item)
    tunnels.at(-1)?.items.push(item)
  }
  return { name: file.replace(".jsonl", ""), about, tunnels, items }
}

export const scenarios: ReadonlyArray<Scenario> = readdirSync(folder)
  .filter((file) => file.endsWith(".jsonl"))
  .sort()
  .map(read)

export const framesOf = ({ items }: { readonly items: ReadonlyArray<Item> }): ReadonlyArray<RecordedFrame> =>
  items.flatMap((item) => (item._tag === "Frame" ? [item.frame] : []))

export const decode = ({ bytes, from }: RecordedFrame): ClientFrame | ServerFrame | Malformed =>
  from === "client" ? decodeClientFrame(bytes) : decodeServerFrame(bytes)

const metadataWords = (block: Buffer | undefined): string => {
  const metadata = metadataFromWire(block ?? Buffer.alloc(0))
  if (metadata instanceof MetadataProblem) return "{unreadable}"
  const entries = Object.entries(metadata.toJSON())
    .filter(([key]) => key !== "grpc-timeout")
    .map(([key, values]) => `${key}=${values.map(String).join("|")}`)
  return `{${entries.sort().join(" ")}}`
}

/** A message in words that do not depend on the order of a map's entries. */
export type MessageWords = (message: Buffer) => string

/**
 * What was said on each stream, in order, by one end. Window updates are counted and not listed: when to send them
 * is each implementation's own affair.
 */
export class Transcript {
  readonly streams = new Map<number, Array<string>>()
  /** Bytes of credit given, by stream. */
  readonly granted = new Map<number, number>()
  /** Payload bytes sent, by stream. */
  readonly sent = new Map<number, number>()
  private readonly open = new Map<number, { size: number; parts: Array<Buffer>; have: number }>()
  private readonly words: MessageWords

  constructor(words: MessageWords) {
    this.words = words
  }

  of(id: number): Array<string> {
    const said = this.streams.get(id) ?? []
    this.streams.set(id, said)
    return said
  }

  add(frame: ClientFrame | ServerFrame | Malformed): void {
    if (frame.id === undefined) return
    const said = this.of(frame.id)
    switch (frame._tag) {
      case "WindowUpdate":
        this.granted.set(frame.id, (this.granted.get(frame.id) ?? 0) + frame.increment)
        return
      case "Settings":
        said.push(`settings ${frame.revisions.join(",")} ${frame.window}`)
        return
      case "NewStream":
        said.push(`open ${frame.method} ${frame.revision} ${frame.window} ${metadataWords(frame.headers)}`)
        return
      case "ResponseHeaders":
        said.push(`headers ${metadataWords(frame.headers)}`)
        return
      case "HalfClose":
        said.push("half-close")
        return
      case "Cancel":
        said.push("cancel")
        return
      case "CloseStream": {
        const status = statusFromWire(frame.trailers, frame.status)
        const code = status instanceof MetadataProblem ? "unreadable" : status.code
        said.push(`close ${code} ${metadataWords(frame.trailers)}`)
        return
      }
      case "Message":
        this.open.set(frame.id, { size: frame.size, parts: [], have: 0 })
        this.data(frame.id, frame.data)
        return
      case "MoreData":
        this.data(frame.id, frame.data)
        return
      default:
        said.push(frame._tag)
    }
  }

  private data(id: number, data: Buffer): void {
    this.sent.set(id, (this.sent.get(id) ?? 0) + data.length)
    const message = this.open.get(id)
    if (message === undefined) {
      this.of(id).push("stray data")
      return
    }
    message.parts.push(data)
    message.have += data.length
    if (message.have < message.size) return
    this.open.delete(id)
    this.of(id).push(
      message.have > message.size ? "too much data" : `message ${this.words(Buffer.concat(message.parts))}`
    )
  }

  /** Streams that said something. */
  get said(): Record<string, ReadonlyArray<string>> {
    return Object.fromEntries([...this.streams].filter(([, words]) => words.length > 0))
  }
}
