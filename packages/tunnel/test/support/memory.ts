/**
 * A carrier in memory, for tests that speak frames themselves: what the engine under test writes is kept, what the
 * test sends is delivered at once.
 */
import { Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { Carrier, CarrierEnd } from "../../src/internal/carrier.ts"
import { decodeClientFrame, decodeServerFrame } from "../../src/internal/decode.ts"
import { encodeFrame } from "../../src/internal/encode.ts"
import type { Extension } from "../../src/internal/extensions.ts"
import type { ClientFrame, Malformed, ServerFrame } from "../../src/internal/frame.ts"

export interface PeerOptions {
  readonly negotiates?: boolean
  readonly secure?: boolean
  /** Default: none, as with a peer of another make. */
  readonly extensions?: ReadonlyArray<Extension>
}

export interface Peer<In, Out> {
  readonly carrier: Carrier
  /** Everything that the engine wrote so far. */
  readonly written: ReadonlyArray<In>
  readonly send: (frame: Out) => void
  readonly sendBytes: (bytes: Buffer) => void
  /** Ends the carrier from the peer's side. */
  readonly end: (end?: CarrierEnd) => void
  /** How the engine ended the carrier, once it has. */
  readonly ended: () => { readonly error: CarrierEnd | undefined } | undefined
  /** Holds writes back, as a peer that does not read; `flow(true)` lets them go. */
  readonly flow: (on: boolean) => void
  /** Waits for a written frame. */
  readonly next: <F extends In>(is: (frame: In) => frame is F) => Effect.Effect<F>
}

const peer = <In, Out>(
  decode: (bytes: Buffer) => In,
  encode: (frame: Out) => Buffer,
  options: PeerOptions
): Peer<In, Out> => {
  const written: Array<In> = []
  const watchers = new Set<() => void>()
  let onFrame: ((bytes: Buffer) => void) | undefined
  let onEnd: ((end: CarrierEnd) => void) | undefined
  let over = false
  let flowing = true
  let held: (() => void) | undefined
  let closed: { error: CarrierEnd | undefined } | undefined
  const finish = (end: CarrierEnd): void => {
    if (over) return
    over = true
    held?.()
    onEnd?.(end)
  }
  return {
    written,
    send: (frame) => onFrame?.(encode(frame)),
    sendBytes: (bytes) => onFrame?.(bytes),
    end: (end = { code: 0, details: "done" }) => finish(end),
    ended: () => closed,
    flow: (on) => {
      flowing = on
      if (on) held?.()
    },
    next: (is) =>
      Effect.callback((resume) => {
        const look = () => {
          const found = written.find(is)
          if (found === undefined) return
          watchers.delete(look)
          resume(Effect.succeed(found))
        }
        watchers.add(look)
        look()
        return Effect.sync(() => watchers.delete(look))
      }),
    carrier: {
      peer: "memory",
      metadata: new Metadata(),
      secure: options.secure ?? false,
      negotiates: options.negotiates ?? true,
      extensions: new Set(options.extensions),
      listen: (frame, end) => {
        onFrame = frame
        onEnd = end
      },
      framing: "frames",
      write: (frames, done) => {
        if (!over) for (const frame of frames) written.push(decode(Buffer.from(frame)))
        for (const look of [...watchers]) look()
        if (flowing || over) {
          done()
          return
        }
        held = () => {
          held = undefined
          done()
        }
      },
      end: (error) =>
        Effect.sync(() => {
          closed = { error }
          finish({ code: 0, details: "ended here" })
        })
    }
  }
}

/** The peer of a tunnel server: a tunnel client that speaks frames. */
export const fakeClient = (options: PeerOptions = {}): Peer<ServerFrame | Malformed, ClientFrame> =>
  peer(decodeServerFrame, encodeFrame, options)

/** The peer of a tunnel client: a tunnel server that speaks frames. */
export const fakeServer = (options: PeerOptions = {}): Peer<ClientFrame | Malformed, ServerFrame> =>
  peer(decodeClientFrame, encodeFrame, options)
