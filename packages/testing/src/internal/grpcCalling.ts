/**
 * The service of the gRPC matrix, its stock handlers, and calls of it.
 *
 * Invariants
 * 1. A call is told its status once, and a client that is not waited for costs nothing.
 * 2. Stock handlers do what grpc-js shows in its examples: no listener that the cell does not need.
 */
import * as grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { GrpcConnection } from "../grpc.ts"
import type { GrpcKind, GrpcMatrixDefinition } from "../grpcDisconnects.ts"
import type { Calling } from "./grpcDepartures.ts"

const method = <In extends boolean, Out extends boolean>(
  name: string,
  requestStream: In,
  responseStream: Out
) => ({
  path: `/curfew.conformance.Leaving/${name}`,
  requestStream,
  responseStream,
  requestSerialize: (text: string) => Buffer.from(text),
  requestDeserialize: (bytes: Buffer) => bytes.toString(),
  responseSerialize: (text: string) => Buffer.from(text),
  responseDeserialize: (bytes: Buffer) => bytes.toString()
})

export const definition: GrpcMatrixDefinition = {
  unary: /* @__PURE__ */ method("Unary", false, false),
  clientStream: /* @__PURE__ */ method("ClientStream", true, false),
  serverStream: /* @__PURE__ */ method("ServerStream", false, true),
  bidi: /* @__PURE__ */ method("Bidi", true, true)
}

export const streams = (kind: GrpcKind): boolean => kind === "serverStream" || kind === "bidi"
export const takesStream = (kind: GrpcKind): boolean => kind === "clientStream" || kind === "bidi"

interface AnyCall {
  readonly cancel: () => void
  readonly write?: (text: string) => unknown
  readonly end?: () => void
  readonly pause?: () => void
}

type Listen = (event: string, listener: (value: never) => void) => unknown

const begin = (client: grpc.Client, kind: GrpcKind, options: grpc.CallOptions, silent: boolean): AnyCall => {
  const { path, requestSerialize: to, responseDeserialize: from } = definition[kind]
  const metadata = new grpc.Metadata()
  const nothing = (): void => undefined
  switch (kind) {
    case "unary":
      // A call without its message: as one that streams its requests.
      return silent
        ? client.makeClientStreamRequest(path, to, from, metadata, options, nothing)
        : client.makeUnaryRequest(path, to, from, "q", metadata, options, nothing)
    case "clientStream":
      return client.makeClientStreamRequest(path, to, from, metadata, options, nothing)
    case "serverStream":
      return client.makeServerStreamRequest(path, to, from, "q", metadata, options)
    case "bidi":
      return client.makeBidiStreamRequest(path, to, from, metadata, options)
  }
}

export const callOver = (
  connection: GrpcConnection,
  kind: GrpcKind,
  {
    options = {},
    paused = false,
    silent = false
  }: { readonly options?: grpc.CallOptions; readonly silent?: boolean; readonly paused?: boolean } = {}
): Calling => {
  const client = new grpc.Client("127.0.0.1", grpc.credentials.createInsecure(), {
    channelOverride: connection.channel as grpc.Channel
  })
  const status = Deferred.makeUnsafe<grpc.StatusObject>()
  let came = 0
  let look: (() => void) | undefined
  const call = begin(client, kind, options, silent)
  // The types know each event of each kind; these are events that all have.
  const on = (call as unknown as { readonly on: Listen }).on.bind(call)
  on("error", () => undefined)
  on("status", (given: grpc.StatusObject) => Deferred.doneUnsafe(status, Effect.succeed(given)))
  if (streams(kind)) {
    on("data", () => {
      came++
      look?.()
    })
    if (paused) call.pause?.()
  }
  if (takesStream(kind) && !silent) call.write?.("q")
  return {
    cancel: () => call.cancel(),
    end: () => call.end?.(),
    parts: (count) =>
      Effect.callback((resume) => {
        look = () => {
          if (came >= count) resume(Effect.void)
        }
        look()
      }),
    status: Deferred.await(status)
  }
}

/** What a stock handler is told, and what tells it to go on. */
export interface StockCell {
  readonly sees: (event: string) => void
  readonly reached: () => void
  /** Calls back once, when the gate opens. */
  readonly onOpen: (goOn: () => void) => void
  readonly writes: "none" | "one" | "much"
  readonly ended: () => void
}

type StockCall = grpc.ServerDuplexStream<string, string>

export const part: string = /* @__PURE__ */ "x".repeat(64 * 1024)
export const parts = 200

export const stockHandlers = (cell: StockCell): grpc.UntypedServiceImplementation => {
  const watched = (call: StockCall): void => {
    for (const event of ["cancelled", "end", "drain"]) call.on(event, () => cell.sees(event))
  }
  const replying = (call: StockCall, reply: grpc.sendUnaryData<string>): void => {
    watched(call)
    cell.onOpen(() => {
      reply(null, "answer")
      cell.ended()
    })
    cell.reached()
  }
  const writing = (call: StockCall): void => {
    watched(call)
    cell.onOpen(() => {
      call.write("answer")
      call.end()
      cell.ended()
    })
    if (cell.writes === "one") call.write("part")
    if (cell.writes === "much") {
      // More than the client's stub and any window take, so that some of it waits however fast the transport is.
      for (let sent = 0; sent < parts; sent++) call.write(part)
    }
    cell.reached()
  }
  const reading = (call: StockCall): void => {
    call.on("data", () => undefined)
  }
  return {
    unary: replying as never,
    clientStream: ((call: StockCall, reply: grpc.sendUnaryData<string>) => {
      replying(call, reply)
      reading(call)
    }) as never,
    serverStream: writing as never,
    bidi: ((call: StockCall) => {
      writing(call)
      reading(call)
    }) as never
  }
}
