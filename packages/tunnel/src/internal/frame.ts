/**
 * The frames of a tunnel, as data.
 *
 * `ClientFrame` always travels from the tunnel client to the tunnel server and `ServerFrame` the other way,
 * whichever of the two dialled. Nested messages that belong to one call (metadata, status) stay encoded: each
 * has a codec of its own, so that a mistake in one of them is that call's mistake and never the tunnel's.
 *
 * **Invariants**
 * 1. `id` is a safe integer; a frame whose id is not cannot be represented.
 * 2. Byte fields of a decoded frame are views of the received buffer; whoever keeps one decides whether to copy.
 */
export interface NewStream {
  readonly _tag: "NewStream"
  readonly id: number
  readonly method: string
  /** An encoded `Metadata` message. */
  readonly headers: Buffer | undefined
  readonly window: number
  readonly revision: number
}

/** The first frame of a message: its full length and as much of it as fits. */
interface Message {
  readonly _tag: "Message"
  readonly id: number
  readonly size: number
  readonly data: Buffer
}

interface MoreData {
  readonly _tag: "MoreData"
  readonly id: number
  readonly data: Buffer
}

interface HalfClose {
  readonly _tag: "HalfClose"
  readonly id: number
}

interface Cancel {
  readonly _tag: "Cancel"
  readonly id: number
  /** An encoded reason, from a peer of this library that agreed to send one. */
  readonly reason?: Buffer | undefined
}

/** An end opens, or takes, no more streams. An extension; its id is that of the tunnel. */
interface Drain {
  readonly _tag: "Drain"
  readonly id: number
}

interface WindowUpdate {
  readonly _tag: "WindowUpdate"
  readonly id: number
  readonly increment: number
}

interface ResponseHeaders {
  readonly _tag: "ResponseHeaders"
  readonly id: number
  /** An encoded `Metadata` message. */
  readonly headers: Buffer
}

interface CloseStream {
  readonly _tag: "CloseStream"
  readonly id: number
  /** An encoded `Metadata` message. */
  readonly trailers: Buffer | undefined
  /** An encoded `google.rpc.Status`; absent means OK. */
  readonly status: Buffer | undefined
}

export interface Settings {
  readonly _tag: "Settings"
  readonly id: number
  readonly revisions: ReadonlyArray<number>
  readonly window: number
}

/** A frame in which no member of the union was set, or only one that this version does not know. */
interface Unset {
  readonly _tag: "Unset"
  readonly id: number
}

/** Bytes that are not a frame. `id` is there when it could still be read. */
export interface Malformed {
  readonly _tag: "Malformed"
  readonly id: number | undefined
  readonly detail: string
}

export type ClientFrame = NewStream | Message | MoreData | HalfClose | Cancel | WindowUpdate | Drain | Unset
export type ServerFrame =
  | ResponseHeaders
  | Message
  | MoreData
  | CloseStream
  | Settings
  | WindowUpdate
  | Drain
  | Unset

/** The id under which a tunnel server speaks about the tunnel itself. */
export const tunnelId = -1

/** The tag of field 15, which stands for `Drain` in both directions; the protocol has no such field. */
export const drainTag = 0x7a

/** The first protocol revision: no flow control. Peers that do not negotiate speak no other. */
export const revisionZero = 0

/** The second protocol revision: each stream has a window in each direction. */
export const revisionOne = 1

/** What is spoken on a stream. */
export type Revision = typeof revisionZero | typeof revisionOne

/** The window that every known peer starts a stream with. */
export const defaultWindow = 65_536

/**
 * Rule `pieces`: the longest piece of a message that goes into one frame; peers that split do so at the same length.
 */
export const maxChunk = 16_384

/** Rule `long-pieces`: the same for a stream that has the writer to itself, between ends that agreed on it. */
export const longPiece = 65_536

/** The largest value of a `uint32` field. */
export const maxUint32 = 0xffff_ffff

export const noBytes: Buffer = Buffer.alloc(0)
