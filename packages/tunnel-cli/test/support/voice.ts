/** A plain grpc-js service of all four kinds, and a plain grpc-js client for it. */
import * as grpc from "@grpc/grpc-js"
import { atEnd } from "./cleanUp.ts"

const bytes = {
  requestSerialize: (text: string) => Buffer.from(text),
  requestDeserialize: (buffer: Buffer) => buffer.toString(),
  responseSerialize: (text: string) => Buffer.from(text),
  responseDeserialize: (buffer: Buffer) => buffer.toString()
}

export const definition = {
  Shout: { path: "/demo.Voice/Shout", requestStream: false, responseStream: false, ...bytes },
  Spell: { path: "/demo.Voice/Spell", requestStream: false, responseStream: true, ...bytes },
  Join: { path: "/demo.Voice/Join", requestStream: true, responseStream: false, ...bytes },
  Echo: { path: "/demo.Voice/Echo", requestStream: true, responseStream: true, ...bytes },
  Fail: { path: "/demo.Voice/Fail", requestStream: false, responseStream: false, ...bytes },
  Stall: { path: "/demo.Voice/Stall", requestStream: true, responseStream: true, ...bytes },
  Wait: { path: "/demo.Voice/Wait", requestStream: false, responseStream: true, ...bytes }
} satisfies grpc.ServiceDefinition

/** With what percent-encoding has to be right about. */
export const gone = "gone: 100 % – “ü”"

/** `google.rpc.Status` with code 5, a message and one detail, as bytes. */
export const details = Buffer.concat([
  Buffer.from([0x08, 5, 0x12, Buffer.byteLength(gone)]),
  Buffer.from(gone),
  Buffer.from([0x1a, 7, 0x0a, 1, 0x61, 0x12, 2, 0x68, 0x69])
])

type Deferred<A> = { readonly promise: Promise<A>; readonly resolve: (value: A) => void }

const deferred = <A>(): Deferred<A> => {
  let resolve: (value: A) => void = () => undefined
  const promise = new Promise<A>((done) => {
    resolve = done
  })
  return { promise, resolve }
}

export interface Backend {
  readonly address: string
  readonly port: number
  /** Each call's metadata and deadline, in the order in which they came. */
  readonly seen: Array<{
    readonly path: string
    readonly metadata: grpc.Metadata
    readonly deadline: number
  }>
  /** When the next call of `Wait` has begun, and when it has been cancelled. */
  readonly nextWait: () => { readonly waiting: Promise<void>; readonly cancelled: Promise<void> }
  readonly stop: () => void
}

export const startBackend = async (
  name = "",
  port = 0,
  credentials = grpc.ServerCredentials.createInsecure()
): Promise<Backend> => {
  const server = new grpc.Server()
  const seen: Array<Backend["seen"][number]> = []
  let waiting = deferred<void>()
  let cancelled = deferred<void>()
  const note = (call: grpc.ServerUnaryCall<string, string> | grpc.ServerDuplexStream<string, string>) =>
    seen.push({ path: call.getPath(), metadata: call.metadata, deadline: Number(call.getDeadline()) })
  const trailers = new grpc.Metadata()
  trailers.set("x-trailer", "last")
  trailers.set("x-bytes-bin", Buffer.from("bytes"))
  server.addService(definition as grpc.ServiceDefinition, {
    Shout: (call: grpc.ServerUnaryCall<string, string>, respond: grpc.sendUnaryData<string>) => {
      note(call)
      const headers = new grpc.Metadata()
      headers.set("x-header", "first")
      call.sendMetadata(headers)
      respond(null, `${name}${call.request.toUpperCase()}`, trailers)
    },
    Spell: (call: grpc.ServerWritableStream<string, string>) => {
      for (const letter of call.request) call.write(letter)
      call.end(trailers)
    },
    Join: (call: grpc.ServerReadableStream<string, string>, respond: grpc.sendUnaryData<string>) => {
      const parts: Array<string> = []
      call.on("data", (part: string) => parts.push(part))
      call.on("end", () => respond(null, parts.join("")))
    },
    Echo: (call: grpc.ServerDuplexStream<string, string>) => {
      call.pipe(call)
    },
    Fail: (call: grpc.ServerUnaryCall<string, string>, respond: grpc.sendUnaryData<string>) => {
      note(call)
      const metadata = new grpc.Metadata()
      metadata.set("grpc-status-details-bin", details)
      metadata.set("x-trailer", "last")
      respond({ code: grpc.status.NOT_FOUND, details: gone, metadata })
    },
    // Reads nothing.
    Stall: () => undefined,
    Wait: (call: grpc.ServerWritableStream<string, string>) => {
      call.on("cancelled", () => cancelled.resolve())
      call.write("waiting")
      waiting.resolve()
    }
  })
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`127.0.0.1:${port}`, credentials, (error, on) =>
      error === null ? resolve(on) : reject(error)
    )
  )
  const stop = () => server.forceShutdown()
  atEnd(stop)
  return {
    address: `127.0.0.1:${bound}`,
    port: bound,
    seen,
    nextWait: () => {
      waiting = deferred<void>()
      cancelled = deferred<void>()
      return { waiting: waiting.promise, cancelled: cancelled.promise }
    },
    stop
  }
}

export const clientOf = (
  address: string,
  credentials = grpc.credentials.createInsecure(),
  options?: grpc.ClientOptions
) => {
  const client = new grpc.Client(address, credentials, options)
  atEnd(() => client.close())
  return client
}

export const metadataFor = (key: string | undefined): grpc.Metadata => {
  const metadata = new grpc.Metadata()
  if (key !== undefined) metadata.set("curfew-agent", key)
  return metadata
}

export interface Outcome {
  readonly value: string | undefined
  readonly headers: grpc.Metadata | undefined
  readonly status: grpc.StatusObject
}

/** A unary call, with everything that came of it. */
export const unary = (
  client: grpc.Client,
  method: "Shout" | "Fail",
  text: string,
  key: string | undefined = "home",
  options: grpc.CallOptions = {},
  metadata = metadataFor(key)
): Promise<Outcome> =>
  new Promise((resolve) => {
    const { path, requestSerialize, responseDeserialize } = definition[method]
    let value: string | undefined
    let headers: grpc.Metadata | undefined
    const call = client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      text,
      metadata,
      options,
      (_, answer) => {
        value = answer
      }
    )
    call.on("metadata", (metadata) => {
      headers = metadata
    })
    call.on("status", (status) => setImmediate(() => resolve({ value, headers, status })))
  })

/** Everything that a stream of responses brings. */
export const collect = (
  call: grpc.ClientReadableStream<string> | grpc.ClientDuplexStream<string, string>
): Promise<{ readonly parts: ReadonlyArray<string>; readonly status: grpc.StatusObject }> =>
  new Promise((resolve) => {
    const parts: Array<string> = []
    call.on("data", (part: string) => parts.push(part))
    call.on("error", () => undefined)
    call.on("status", (status) => setImmediate(() => resolve({ parts, status })))
  })

export const serverStream = (client: grpc.Client, method: "Spell" | "Wait", text: string, key = "home") => {
  const { path, requestSerialize, responseDeserialize } = definition[method]
  return client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, text, metadataFor(key))
}

/** A call that is not answered before its deadline. */
export const waitUntil = (client: grpc.Client, deadline: number, key = "home") => {
  const { path, requestSerialize, responseDeserialize } = definition.Wait
  return client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, "x", metadataFor(key), {
    deadline
  })
}

export const duplex = (client: grpc.Client, method: "Echo" | "Stall" = "Echo", key = "home") => {
  const { path, requestSerialize, responseDeserialize } = definition[method]
  return client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadataFor(key))
}

export const clientStream = (
  client: grpc.Client,
  parts: ReadonlyArray<string>,
  key = "home"
): Promise<string | undefined> =>
  new Promise((resolve, reject) => {
    const { path, requestSerialize, responseDeserialize } = definition.Join
    const call = client.makeClientStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      metadataFor(key),
      (error, answer) => (error === null ? resolve(answer) : reject(error))
    )
    for (const part of parts) call.write(part)
    call.end()
  })
