/**
 * What a tunnel needs of the transport below it: frames in, frames out, one end.
 *
 * **Invariants**
 * 1. `listen` is called once. `onFrame` gets whole frames in order; `onEnd` comes exactly once, after the last frame.
 * 2. `write` is called again only after the last one called back. It calls back once, when the transport takes more or
 *    once the carrier has ended: it neither fails nor waits for a peer that is gone. It may do so at once. The bytes are
 *    left alone until then.
 * 3. `end` is idempotent. It ends this end's direction, with an error when one is given.
 */
import type { PeerCertificate } from "node:tls"
import type { Metadata } from "@grpc/grpc-js"
import type * as Effect from "effect/Effect"
import type { Framing, OnFrame } from "./batch.ts"
import type { Extensions } from "./extensions.ts"

/** How the transport ended, as a gRPC status: code 0 when the peer simply finished. */
export interface CarrierEnd {
  readonly code: number
  readonly details: string
}

export interface Carrier {
  readonly peer: string
  /** What the peer said about itself: request headers at the network server, response headers at the client. */
  readonly metadata: Metadata
  /** Secrets may travel: the transport is encrypted. */
  readonly secure: boolean
  /** The peer's certificate, where TLS verified one. */
  readonly certificate?: PeerCertificate | undefined
  /** Who opened the tunnel, at the network server: what its hook found out. */
  readonly identity?: unknown
  /** The peer announced that it negotiates settings. */
  readonly negotiates: boolean
  /** What both ends speak beyond the protocol. */
  readonly extensions: Extensions
  /** How frames stand in what `write` takes. */
  readonly framing: Framing
  readonly listen: (onFrame: OnFrame, onEnd: (end: CarrierEnd) => void) => void
  readonly write: (bytes: ReadonlyArray<Buffer>, done: () => void) => void
  readonly end: (error?: CarrierEnd) => Effect.Effect<void>
}
