/** A service with one method of each kind, and handlers as one writes them for `grpc.Server`. */
import * as grpc from "@grpc/grpc-js"

const identity = (bytes: Buffer): Buffer => bytes

const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/curfew.test.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity
})

export const definition = {
  Unary: method("Unary", false, false),
  ClientStream: method("ClientStream", true, false),
  ServerStream: method("ServerStream", false, true),
  Bidi: method("Bidi", true, true)
} satisfies grpc.ServiceDefinition

export type UnaryHandler = grpc.handleUnaryCall<Buffer, Buffer>
export type ClientStreamHandler = grpc.handleClientStreamingCall<Buffer, Buffer>
export type ServerStreamHandler = grpc.handleServerStreamingCall<Buffer, Buffer>
export type BidiHandler = grpc.handleBidiStreamingCall<Buffer, Buffer>

export interface Handlers {
  readonly Unary: UnaryHandler
  readonly ClientStream: ClientStreamHandler
  readonly ServerStream: ServerStreamHandler
  readonly Bidi: BidiHandler
}

/** What the request metadata asks to have sent back. */
const echoed = (from: grpc.Metadata, prefix: string): grpc.Metadata => {
  const metadata = new grpc.Metadata()
  for (const [key, values] of Object.entries(from.toJSON())) {
    if (key.startsWith(prefix)) for (const value of values) metadata.add(key, value)
  }
  return metadata
}

/** Answers with what came, and with the metadata that was asked for; `fail` asks for an error. */
const handlers: Handlers = {
  Unary: (call, callback) => {
    call.sendMetadata(echoed(call.metadata, "head-"))
    const trailers = echoed(call.metadata, "tail-")
    const wanted = call.metadata.get("fail")[0]
    if (wanted !== undefined) {
      return callback({ code: Number(wanted), details: "as asked", metadata: trailers })
    }
    callback(null, call.request, trailers)
  },
  ClientStream: (call, callback) => {
    const parts: Array<Buffer> = []
    call.on("data", (part: Buffer) => parts.push(part))
    call.on("end", () => callback(null, Buffer.concat(parts)))
  },
  ServerStream: (call) => {
    const count = call.request[0] ?? 0
    for (let index = 0; index < count; index++) call.write(Buffer.from([index]))
    call.end(echoed(call.metadata, "tail-"))
  },
  Bidi: (call) => {
    call.on("data", (part: Buffer) => call.write(part))
    call.on("end", () => call.end())
  }
}

export const implementation = (overrides: Partial<Handlers> = {}): grpc.UntypedServiceImplementation =>
  ({ ...handlers, ...overrides }) as unknown as grpc.UntypedServiceImplementation

type Unary = (
  request: Buffer,
  metadata: grpc.Metadata,
  options: grpc.CallOptions,
  callback: grpc.requestCallback<Buffer>
) => grpc.ClientUnaryCall

export interface EchoClient extends grpc.Client {
  readonly Unary: Unary
  readonly ClientStream: (
    metadata: grpc.Metadata,
    options: grpc.CallOptions,
    callback: grpc.requestCallback<Buffer>
  ) => grpc.ClientWritableStream<Buffer>
  readonly ServerStream: (
    request: Buffer,
    metadata?: grpc.Metadata,
    options?: grpc.CallOptions
  ) => grpc.ClientReadableStream<Buffer>
  readonly Bidi: (
    metadata?: grpc.Metadata,
    options?: grpc.CallOptions
  ) => grpc.ClientDuplexStream<Buffer, Buffer>
}

export const EchoClient = grpc.makeGenericClientConstructor(definition, "Echo") as unknown as new (
  address: string,
  credentials: grpc.ChannelCredentials,
  options?: Partial<grpc.ClientOptions>
) => EchoClient

/** How a unary call ended. */
export interface Answer {
  readonly code: number
  readonly details: string
  readonly value: Buffer | undefined
  readonly headers: grpc.Metadata | undefined
  readonly trailers: grpc.Metadata | undefined
}

export const metadata = (entries: Readonly<Record<string, grpc.MetadataValue>> = {}): grpc.Metadata => {
  const made = new grpc.Metadata()
  for (const [key, value] of Object.entries(entries)) made.set(key, value)
  return made
}

/** One unary call, with everything that a stub tells about it. */
export const unary = (
  client: EchoClient,
  request: Buffer,
  options: {
    readonly metadata?: grpc.Metadata
    readonly call?: grpc.CallOptions
    readonly onCall?: (call: grpc.ClientUnaryCall) => void
  } = {}
): Promise<Answer> =>
  new Promise((resolve) => {
    let headers: grpc.Metadata | undefined
    let value: Buffer | undefined
    const call = client.Unary(
      request,
      options.metadata ?? new grpc.Metadata(),
      options.call ?? {},
      (_error, answer) => {
        value = answer
      }
    )
    call.on("metadata", (received: grpc.Metadata) => {
      headers = received
    })
    call.on("status", (status: grpc.StatusObject) =>
      resolve({ code: status.code, details: status.details, value, headers, trailers: status.metadata })
    )
    options.onCall?.(call)
  })

/** How a stream of responses ended. */
export interface Collected {
  readonly code: number
  readonly details: string
  readonly messages: ReadonlyArray<Buffer>
  readonly trailers: grpc.Metadata
}

export const collect = (
  call: grpc.ClientReadableStream<Buffer> | grpc.ClientDuplexStream<Buffer, Buffer>
): Promise<Collected> =>
  new Promise((resolve) => {
    const messages: Array<Buffer> = []
    call.on("data", (message: Buffer) => messages.push(message))
    call.on("error", () => undefined)
    call.on("status", (status: grpc.StatusObject) =>
      resolve({ code: status.code, details: status.details, messages, trailers: status.metadata })
    )
  })
