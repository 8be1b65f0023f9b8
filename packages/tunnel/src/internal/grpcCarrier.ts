/**
 * Carriers over a grpc-js bidi call, from either end of it.
 *
 * **Invariants**
 * 1. One frame is one gRPC message, or, where both ends announced it, a batch of frames is. The server announces it
 *    to a client that did, so that headers lost on the way to it cannot make the two disagree.
 * 2. Where the HTTP/2 stream below a server's call is at hand, frames are written to it, as a run of messages; the call
 *    itself sends the headers and the status, and nothing else. Otherwise they are written as messages of the call.
 * 3. `end` waits for the call to be over, so that nothing of it outlives the tunnel; the tunnel bounds that wait.
 */
import type { ServerHttp2Stream } from "node:http2"
import type { PeerCertificate } from "node:tls"
import {
  type Client,
  type ClientDuplexStream,
  status as Code,
  Metadata,
  type ServerDuplexStream,
  type StatusObject
} from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { TunnelOrigin } from "../TunnelAuth.ts"
import { TunnelOpenError } from "../TunnelError.ts"
import { batchKey, type OnFrame, unpack } from "./batch.ts"
import { afterTurns } from "./bridge.ts"
import { transportKey } from "./callSurface.ts"
import type { Carrier, CarrierEnd } from "./carrier.ts"
import { allExtensions, announceExtensions, type Extensions, readExtensions } from "./extensions.ts"
import { Ending, writeMessages, writeRun } from "./outerCall.ts"

export const negotiateKey = "grpctunnel-negotiate"
const negotiateOn = "on"

export const paths = {
  forward: "/grpctunnel.v1.TunnelService/OpenTunnel",
  reverse: "/grpctunnel.v1.TunnelService/OpenReverseTunnel"
} as const

export const identity = (bytes: Buffer): Buffer => bytes

/** Adds this end's announcements to headers of the user's, which stay as they are. */
export const announced = (
  headers: Metadata | undefined,
  batched: boolean,
  extensions: Extensions
): Metadata => {
  const metadata = headers?.clone() ?? new Metadata()
  metadata.set(negotiateKey, negotiateOn)
  if (batched) metadata.set(batchKey, negotiateOn)
  else metadata.remove(batchKey)
  announceExtensions(metadata, extensions)
  return metadata
}

export const batches = (metadata: Metadata): boolean => metadata.get(batchKey)[0] === negotiateOn

export const negotiates = (metadata: Metadata): boolean => metadata.get(negotiateKey)[0] === negotiateOn

/** What TLS says of the other end of an outer call. */
export interface Security {
  /** The connection is encrypted. */
  readonly secure: boolean
  readonly certificate: PeerCertificate | undefined
}

/**
 * grpc-js tells a server of TLS only when the client had a certificate, so whether a connection is encrypted at all is
 * asked of the session below the call, where there is one: each interceptor has the next one in `nextCall`.
 */
const encrypted = (call: object): boolean => {
  let layer: unknown = call
  for (let depth = 0; typeof layer === "object" && layer !== null && depth < 16; depth++) {
    const { call: inner, nextCall, stream } = layer as Readonly<Record<string, unknown>>
    const session = (stream as { readonly session?: { readonly encrypted?: unknown } } | undefined)?.session
    if (session !== undefined) return session.encrypted === true
    layer = nextCall ?? inner
  }
  return false
}

export const security = (call: ServerDuplexStream<Buffer, Buffer>): Security => {
  const context = call.getAuthContext()
  return {
    secure: context?.transportSecurityType === "ssl" || encrypted(call),
    certificate: context?.sslPeerCertificate
  }
}

/** What takes the messages of a call apart; bytes that are no batch are the end of the carrier. */
const reader = (
  batched: boolean,
  onFrame: OnFrame,
  onEnd: (end: CarrierEnd) => void
): ((message: Buffer) => void) =>
  batched
    ? (message) => {
        if (!unpack(message, onFrame)) onEnd({ code: Code.INTERNAL, details: "A batch of frames is cut off" })
      }
    : (message) => onFrame(message)

/** Begins the outer call; a client that was closed throws. */
const begin = (
  client: Client,
  path: string,
  metadata: Metadata
): ClientDuplexStream<Buffer, Buffer> | TunnelOpenError => {
  try {
    return client.makeBidiStreamRequest(path, identity, identity, metadata)
  } catch (error) {
    const details = error instanceof Error ? error.message : String(error)
    return new TunnelOpenError({ code: Code.UNAVAILABLE, details })
  }
}

/** The network client's end: opens the call and waits for the response headers. */
export const dial = (
  client: Client,
  path: string,
  headers: Metadata | undefined
): Effect.Effect<Carrier, TunnelOpenError> =>
  Effect.callback<Carrier, TunnelOpenError>((resume) => {
    const call = begin(client, path, announced(headers, true, allExtensions))
    if (call instanceof TunnelOpenError) return resume(Effect.fail(call))
    const ending = new Ending()
    let onEnd: ((end: CarrierEnd) => void) | undefined
    call.on("error", () => undefined)
    call.on("status", ({ code, details }: StatusObject) => {
      ending.settle({ code, details })
      resume(Effect.fail(new TunnelOpenError({ code: code === Code.OK ? Code.UNAVAILABLE : code, details })))
      onEnd?.({ code, details })
    })
    call.on("metadata", (received: Metadata) =>
      resume(
        Effect.succeed({
          peer: call.getPeer(),
          metadata: received,
          secure: call.getAuthContext()?.transportSecurityType === "ssl",
          certificate: call.getAuthContext()?.sslPeerCertificate,
          identity: undefined,
          negotiates: negotiates(received),
          extensions: readExtensions(received),
          listen: (onFrame, listener) => {
            onEnd = listener
            if (ending.value !== undefined) return listener(ending.value)
            call.on("data", reader(batches(received), onFrame, listener))
          },
          framing: batches(received) ? "batches" : "frames",
          write: writeMessages(call, ending),
          end: (error) =>
            Effect.suspend(() => {
              if (error === undefined) call.end()
              else call.cancel()
              return Effect.andThen(
                Effect.timeoutOption(ending.awaited, "1 second"),
                Effect.sync(() => call.cancel())
              )
            })
        })
      )
    )
    return Effect.sync(() => call.cancel())
  })

/** The network server's end of a call that has just come in. Sends the response headers at once. */
export const accept = (
  call: ServerDuplexStream<Buffer, Buffer>,
  headers: Metadata | undefined,
  origin: TunnelOrigin<unknown>,
  stream?: ServerHttp2Stream
): Carrier => {
  const ending = new Ending()
  const batched = batches(call.metadata)
  const extensions = readExtensions(call.metadata)
  call.sendMetadata(announced(headers, batched, extensions))
  // An interceptor may keep the headers back for a while: nothing is written before them.
  const run = stream?.headersSent && !stream.destroyed ? stream : undefined
  if (run !== undefined) run.on("error", () => undefined)
  let onEnd: ((end: CarrierEnd) => void) | undefined
  const over = (end: CarrierEnd) => {
    if (ending.settle(end)) onEnd?.(end)
  }
  const finished = () => {
    if (ending.value === undefined) onEnd?.({ code: Code.OK, details: "The peer finished" })
  }
  // grpc-js ends the requests of a connection that was lost, and says two turns later that it was.
  call.on("end", () => (transportKey in call ? finished() : afterTurns(2, finished)))
  call.on("cancelled", () =>
    over({ code: Code.CANCELLED, details: "The connection or the call was cancelled" })
  )
  // grpc-js says `cancelled` after every end. Inside another tunnel a call that was answered is never cancelled.
  call.on("finish", () => {
    if (transportKey in call) over({ code: Code.OK, details: "The call has ended" })
  })
  call.on("error", () => undefined)
  // It may have been said before anybody listened here: between a hook's answer and this turn.
  if (call.cancelled) over({ code: Code.CANCELLED, details: "The opener has left" })
  return {
    peer: origin.peer,
    metadata: call.metadata,
    secure: origin.secure,
    certificate: origin.certificate,
    identity: origin.identity,
    negotiates: negotiates(call.metadata),
    extensions,
    listen: (onFrame, listener) => {
      onEnd = listener
      if (ending.value !== undefined) return listener(ending.value)
      call.on("data", reader(batched, onFrame, listener))
    },
    framing:
      run === undefined ? (batched ? "batches" : "frames") : batched ? "batches as messages" : "messages",
    write: run === undefined ? writeMessages(call, ending) : writeRun(run, ending),
    end: (error) =>
      Effect.suspend(() => {
        if (ending.value !== undefined) return Effect.void
        if (error === undefined) call.end()
        else call.emit("error", error)
        return ending.awaited
      })
  }
}
