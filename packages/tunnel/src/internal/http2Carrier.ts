/**
 * The carrier over a connection of the tunnel's own: the outer call as an HTTP/2 request, without grpc-js in between.
 *
 * What goes out is one run of bytes with many messages in it, whoever the peer is: to a peer of another make each frame
 * is a message, and costs a call there, but not here.
 *
 * **Invariants**
 * 1. On the wire it is the gRPC call that grpc-js would have made: the same headers, messages and statuses.
 * 2. The call ends once, as a gRPC status, behind the last frame: the server's own, or what became of the connection.
 * 3. `write` hands the bytes to Node in one piece, and calls back when Node has sent them or the call is over.
 */
import { type ClientHttp2Stream, constants, type IncomingHttpHeaders } from "node:http2"
import { status as Code, Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { TunnelOpenError } from "../TunnelError.ts"
import type { Carrier, CarrierEnd } from "./carrier.ts"
import type { Connection } from "./connection.ts"
import { allExtensions, readExtensions } from "./extensions.ts"
import { announced, batches, negotiates } from "./grpcCarrier.ts"
import { MessageReader, type Unreadable } from "./messages.ts"
import { Ending, writeRun } from "./outerCall.ts"
import type { Target } from "./target.ts"

export interface OwnCall {
  readonly target: Target
  readonly path: string
  readonly metadata: Metadata | undefined
  /** The longest gRPC message that is taken. */
  readonly maxMessage: number
}

const ofHttp: Readonly<Record<number, number>> = {
  400: Code.INTERNAL,
  401: Code.UNAUTHENTICATED,
  403: Code.PERMISSION_DENIED,
  404: Code.UNIMPLEMENTED,
  429: Code.UNAVAILABLE,
  502: Code.UNAVAILABLE,
  503: Code.UNAVAILABLE,
  504: Code.UNAVAILABLE
}

const ofReset: Readonly<Record<number, CarrierEnd>> = {
  [constants.NGHTTP2_REFUSED_STREAM]: { code: Code.UNAVAILABLE, details: "The server refused the call" },
  [constants.NGHTTP2_CANCEL]: { code: Code.CANCELLED, details: "The call was cancelled" },
  [constants.NGHTTP2_ENHANCE_YOUR_CALM]: {
    code: Code.RESOURCE_EXHAUSTED,
    details: "The server has no room for this, or was asked too often"
  },
  [constants.NGHTTP2_INADEQUATE_SECURITY]: {
    code: Code.PERMISSION_DENIED,
    details: "The server finds the connection not secure enough"
  }
}

const unreadable: Readonly<Record<Unreadable, CarrierEnd>> = {
  compressed: {
    code: Code.INTERNAL,
    details: "The server compressed a message, which it was not told to do"
  },
  "too large": {
    code: Code.RESOURCE_EXHAUSTED,
    details: "The server sent a message that is larger than any frame"
  },
  "cut off": { code: Code.INTERNAL, details: "A batch of frames is cut off" }
}

const text = (value: string): string => {
  try {
    return decodeURIComponent(value)
  } catch {
    return value
  }
}

/** The status in headers or trailers, where there is one. */
const statusIn = (headers: IncomingHttpHeaders): CarrierEnd | undefined => {
  const code = headers["grpc-status"]
  if (code === undefined) return undefined
  const number = Number(code)
  const details = text(String(headers["grpc-message"] ?? ""))
  return Number.isInteger(number) && number >= 0 && number <= 16
    ? { code: number, details }
    : { code: Code.UNKNOWN, details }
}

const requestHeaders = (call: OwnCall, secure: boolean) => ({
  ...announced(call.metadata, true, allExtensions).toHttp2Headers(),
  ":method": "POST",
  ":scheme": secure ? "https" : "http",
  ":authority": call.target.authority,
  ":path": call.path,
  "content-type": "application/grpc",
  te: "trailers",
  "user-agent": "curfew-tunnel"
})

/** What became of a call that has no status of the server's. */
const endOf = (connection: Connection, stream: ClientHttp2Stream, http: number): CarrierEnd => {
  const { loss } = connection
  if (loss?.code !== undefined) {
    const { code } = ofReset[loss.code] ?? { code: Code.UNAVAILABLE }
    return { code, details: loss.details }
  }
  if (loss !== undefined) return { code: Code.UNAVAILABLE, details: loss.details }
  if (http !== 200 && http !== 0) {
    return { code: ofHttp[http] ?? Code.UNKNOWN, details: `The server answered with HTTP status ${http}` }
  }
  const details = `The server reset the call with the HTTP/2 code ${stream.rstCode}, and gave no status`
  return ofReset[stream.rstCode] ?? { code: Code.INTERNAL, details }
}

/** Makes the outer call and waits for the response headers. */
export const dialOwn = (connection: Connection, call: OwnCall): Effect.Effect<Carrier, TunnelOpenError> =>
  Effect.callback<Carrier, TunnelOpenError>((resume) => {
    const { session } = connection
    const secure = "encrypted" in connection.socket
    const failed = (end: CarrierEnd): void =>
      resume(
        Effect.fail(new TunnelOpenError({ ...end, code: end.code === Code.OK ? Code.UNAVAILABLE : end.code }))
      )
    if (session.destroyed || session.closed) {
      return failed({
        code: Code.UNAVAILABLE,
        details: connection.loss?.details ?? "The connection was closed"
      })
    }
    const stream = session.request(requestHeaders(call, secure), { endStream: false })
    const ending = new Ending()
    let onEnd: ((end: CarrierEnd) => void) | undefined
    let status: CarrierEnd | undefined
    let http = 0
    const over = (end: CarrierEnd): void => {
      if (!ending.settle(end)) return
      failed(end)
      onEnd?.(end)
    }
    const cancel = (): void => {
      if (!stream.destroyed) stream.close(constants.NGHTTP2_CANCEL)
    }
    stream.on("error", (error) => {
      // What ends the session ends its calls, and is said to them first.
      if (session.destroyed) connection.lose(undefined, error.message)
    })
    stream.once("close", () => over(status ?? endOf(connection, stream, http)))
    stream.once("end", () => {
      if (status === undefined) return
      over(status)
      // The server has finished; so does this end, whatever it had left to say.
      stream.end()
      cancel()
    })
    stream.on("trailers", (trailers) => {
      status ??= statusIn(trailers)
    })
    const accepted = (received: Metadata): Carrier => {
      const batched = batches(received)
      return {
        peer: connection.peer,
        metadata: received,
        secure,
        certificate: connection.certificate,
        identity: undefined,
        negotiates: negotiates(received),
        extensions: readExtensions(received),
        framing: batched ? "batches as messages" : "messages",
        listen: (onFrame, listener, onPiece) => {
          onEnd = listener
          if (ending.value !== undefined) return listener(ending.value)
          const reader = new MessageReader(batched, call.maxMessage, onFrame, onPiece)
          stream.on("data", (chunk: Buffer) => {
            if (ending.value !== undefined) return
            const wrong = reader.feed(chunk)
            if (wrong === undefined) return
            over(unreadable[wrong])
            cancel()
          })
        },
        write: writeRun(stream, ending),
        end: (error) =>
          Effect.suspend(() => {
            if (error === undefined) stream.end()
            else cancel()
            return Effect.andThen(Effect.timeoutOption(ending.awaited, "1 second"), Effect.sync(cancel))
          })
      }
    }
    stream.once("response", (headers) => {
      http = Number(headers[":status"] ?? 0)
      status = statusIn(headers)
      // A status in the headers is all that comes.
      if (status !== undefined || http !== 200) {
        stream.resume()
        if (status === undefined) cancel()
        return
      }
      resume(Effect.succeed(accepted(Metadata.fromHttp2Headers(headers))))
    })
    return Effect.sync(cancel)
  })
