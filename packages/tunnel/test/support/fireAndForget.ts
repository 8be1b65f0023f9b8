/**
 * A tunnel server as one writes it first: the answer goes out in a task that nobody monitors and nobody waits for.
 * It speaks the same frames and runs the same handler steps. The race tests run it to show that they would see it.
 */
import { EventEmitter } from "node:events"
import * as grpc from "@grpc/grpc-js"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { decodeClientFrame } from "../../src/internal/decode.ts"
import { encodeFrame } from "../../src/internal/encode.ts"
import { noBytes, type ServerFrame, tunnelId } from "../../src/internal/frame.ts"
import { identity, negotiateKey, paths } from "../../src/internal/grpcCarrier.ts"
import type { Handlers } from "./echo.ts"

interface Outer {
  on(event: string, listener: (...args: ReadonlyArray<never>) => void): unknown
  write(bytes: Buffer, callback: (error?: Error | null) => void): unknown
}

/** Serves a carrier; every write is a task of its own, started and forgotten. */
const serve = (outer: Outer, handlers: Partial<Handlers>, context: Context.Context<never>): void => {
  const write = (frame: ServerFrame): void => {
    const task = Effect.callback<void, Error>((resume) => {
      outer.write(encodeFrame(frame), (error) => resume(error ? Effect.fail(error) : Effect.void))
    })
    const logged = Effect.tapCause(task, (cause) => Effect.logError("writing a frame failed", cause))
    Effect.runForkWith(context)(logged)
  }
  const message = (id: number, data: Buffer): void => write({ _tag: "Message", id, size: data.length, data })
  const close = (id: number): void => write({ _tag: "CloseStream", id, trailers: noBytes, status: undefined })
  write({ _tag: "Settings", id: tunnelId, revisions: [1], window: 65_536 })
  const starts = new Map<number, string>()
  outer.on("data", (bytes: Buffer) => {
    const frame = decodeClientFrame(bytes)
    if (frame._tag === "NewStream") starts.set(frame.id, frame.method)
    const method = frame.id === undefined ? undefined : starts.get(frame.id)
    if (frame._tag !== "Message" || method === undefined) return
    const { data: request, id } = frame
    const call = Object.assign(new EventEmitter(), {
      request,
      write: (data: Buffer) => message(id, data),
      end: () => close(id)
    })
    const answer = (_error: unknown, data: Buffer): void => {
      message(id, data)
      close(id)
    }
    const handler = method.endsWith("Unary") ? handlers.Unary : handlers.Bidi
    ;(handler as unknown as (call: unknown, callback: unknown) => void)(call, answer)
  })
}

const method = {
  path: paths.forward,
  requestStream: true,
  responseStream: true,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity
}

/** Adds it to a server, for forward tunnels. */
export const addFireAndForget =
  (handlers: Partial<Handlers>, context: Context.Context<never>) =>
  (server: grpc.Server): void => {
    server.addService(
      { OpenTunnel: method },
      {
        OpenTunnel: (call: grpc.ServerDuplexStream<Buffer, Buffer>) => {
          const headers = new grpc.Metadata()
          headers.set(negotiateKey, "on")
          call.sendMetadata(headers)
          call.on("error", () => undefined)
          serve(call, handlers, context)
        }
      }
    )
  }
