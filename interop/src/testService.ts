/**
 * The test service as grpc-js handlers, doing what the Go library's own test server does: each message says how long to
 * wait, which headers and trailers to send and how to fail.
 */
import { fileURLToPath } from "node:url"
import {
  type handleBidiStreamingCall,
  type handleClientStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type ServiceDefinition,
  type ServiceError
} from "@grpc/grpc-js"
import { loadSync } from "@grpc/proto-loader"
import protobuf from "protobufjs"

export interface Any {
  readonly type_url: string
  readonly value: Buffer
}

export interface Message {
  readonly payload: Buffer
  readonly count: number
  readonly code: number
  readonly delay_millis: number
  readonly headers: Record<string, Buffer>
  readonly trailers: Record<string, Buffer>
  readonly error_details: ReadonlyArray<Any>
}

const load = (file: string) =>
  loadSync(fileURLToPath(new URL(`../proto/${file}`, import.meta.url)), {
    keepCase: true,
    defaults: true,
    arrays: true,
    objects: true
  })

export const definition = load("test_service.proto")["grpchantesting.TestService"] as ServiceDefinition
export const triggerDefinition = load("tunnel_test_service.proto")["TunnelTestService"] as ServiceDefinition

/** What a caller asks a handler for: to run the cases over the reverse tunnel that it has opened inside the tunnel. */
export const nestedDefinition = {
  Run: { ...definition["Unary"], path: "/curfew.interop.Nested/Run" }
} as ServiceDefinition

const later = (millis: number): Promise<void> =>
  millis <= 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, millis))

export const toMetadata = (entries: Record<string, Buffer>): Metadata => {
  const metadata = new Metadata()
  for (const [key, value] of Object.entries(entries))
    metadata.add(key, key.endsWith("-bin") ? value : value.toString())
  return metadata
}

/** The last value of each key, as the answer echoes them. */
const echoed = (metadata: Metadata): Record<string, Buffer> =>
  Object.fromEntries(
    Object.keys(metadata.getMap()).map((key) => {
      const last = metadata.get(key).at(-1)
      return [key, typeof last === "string" ? Buffer.from(last) : (last ?? Buffer.alloc(0))]
    })
  )

/** `google.rpc.Status`, for the trailer that carries typed details. */
const encodeStatus = (code: number, message: string, details: ReadonlyArray<Any>): Buffer => {
  const writer = protobuf.Writer.create().uint32(8).int32(code).uint32(18).string(message)
  for (const { type_url, value } of details)
    writer.uint32(26).fork().uint32(10).string(type_url).uint32(18).bytes(value).ldelim()
  return Buffer.from(writer.finish())
}

/** The details of an encoded `google.rpc.Status`. */
export const decodeStatus = (bytes: Buffer): ReadonlyArray<Any> => {
  const details: Array<Any> = []
  const reader = protobuf.Reader.create(bytes)
  while (reader.pos < reader.len) {
    const tag = reader.uint32()
    if (tag !== 26) {
      reader.skipType(tag & 7)
      continue
    }
    const end = reader.uint32() + reader.pos
    const any = { type_url: "", value: Buffer.alloc(0) }
    while (reader.pos < end) {
      const field = reader.uint32()
      if (field === 10) any.type_url = reader.string()
      else if (field === 18) any.value = Buffer.from(reader.bytes())
      else reader.skipType(field & 7)
    }
    details.push(any)
  }
  return details
}

const failure = (message: Message, trailers: Metadata): Partial<ServiceError> => {
  if (message.error_details.length > 0)
    trailers.set("grpc-status-details-bin", encodeStatus(message.code, "error", message.error_details))
  return { code: message.code, details: "error", metadata: trailers }
}

const empty: Message = {
  payload: Buffer.alloc(0),
  count: 0,
  code: 0,
  delay_millis: 0,
  headers: {},
  trailers: {},
  error_details: []
}

const unary: handleUnaryCall<Message, Partial<Message>> = (call, answer) => {
  const { request } = call
  void later(request.delay_millis).then(() => {
    call.sendMetadata(toMetadata(request.headers))
    const trailers = toMetadata(request.trailers)
    if (request.code !== 0) answer(failure(request, trailers))
    else answer(null, { payload: request.payload, headers: echoed(call.metadata) }, trailers)
  })
}

const clientStream: handleClientStreamingCall<Message, Partial<Message>> = (call, answer) => {
  let last = empty
  let count = 0
  const finish = (): void => {
    void later(last.delay_millis).then(() => {
      call.sendMetadata(toMetadata(last.headers))
      const trailers = toMetadata(last.trailers)
      if (last.code !== 0) answer(failure(last, trailers))
      else answer(null, { payload: last.payload, count, headers: echoed(call.metadata) }, trailers)
    })
  }
  call.on("data", (message: Message) => {
    if (last.code !== 0) return
    last = message
    count++
    if (message.code !== 0) finish()
  })
  call.on("end", () => {
    if (last.code === 0) finish()
  })
}

const serverStream: handleServerStreamingCall<Message, Partial<Message>> = (call) => {
  const { request } = call
  void later(request.delay_millis).then(() => {
    call.sendMetadata(toMetadata(request.headers))
    for (let sent = 0; sent < request.count; sent++)
      call.write({ payload: request.payload, headers: echoed(call.metadata) })
    const trailers = toMetadata(request.trailers)
    if (request.code !== 0) call.emit("error", failure(request, trailers))
    else call.end(trailers)
  })
}

const bidiStream: handleBidiStreamingCall<Message, Partial<Message>> = (call) => {
  let last = empty
  let count = 0
  const held: Array<Partial<Message>> = []
  let halfDuplex = false
  const finish = (): void => {
    for (const message of held) call.write(message)
    const trailers = toMetadata(last.trailers)
    if (last.code !== 0) call.emit("error", failure(last, trailers))
    else call.end(trailers)
  }
  const serve = async (): Promise<void> => {
    for await (const message of call as AsyncIterable<Message>) {
      await later(message.delay_millis)
      if (count === 0 && last === empty) {
        call.sendMetadata(toMetadata(message.headers))
        halfDuplex = message.count < 0
      }
      last = message
      if (message.code !== 0) break
      count++
      const answer = { payload: message.payload, count, headers: echoed(call.metadata) }
      if (halfDuplex) held.push(answer)
      else call.write(answer)
    }
    finish()
  }
  void serve().catch((error: Error) => call.emit("error", { code: 13, details: error.message }))
}

const external: handleUnaryCall<object, object> = (_call, answer) => answer(null, {})

export const implementation = {
  Unary: unary,
  ClientStream: clientStream,
  ServerStream: serverStream,
  BidiStream: bidiStream,
  UseExternalMessageTwice: external
}

/** A message in words: two encodings of the same message, with their maps in another order, give the same ones. */
export const messageWords = (bytes: Buffer): string => {
  let message: Message
  try {
    message = definition["Unary"]?.requestDeserialize(bytes) as Message
  } catch {
    return `undecodable ${bytes.toString("hex")}`
  }
  const map = (entries: Record<string, Buffer>): string =>
    Object.entries(entries)
      .filter(([key]) => key !== "grpc-timeout")
      .map(([key, value]) => `${key}=${value.toString("latin1")}`)
      .sort()
      .join(" ")
  const { code, count, delay_millis, error_details, headers, payload, trailers } = message
  const brief = payload.length > 64 ? `${payload.length} bytes of ${payload[0]}` : payload.toString("hex")
  return `${brief} ${count} ${code} ${delay_millis} {${map(headers)}} {${map(trailers)}} ${error_details.length}`
}
