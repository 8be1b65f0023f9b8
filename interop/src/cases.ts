/**
 * What is asked of a tunnel by a caller of ours, whoever serves it: the cases of `peer/main_test.go`, with a stock
 * grpc-js stub. A case fails by throwing a sentence.
 */
import { setTimeout as later } from "node:timers/promises"
import {
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientUnaryCall,
  type ClientWritableStream,
  status as Code,
  Metadata,
  type ServiceError
} from "@grpc/grpc-js"
import { type Any, decodeStatus, type Message, toMetadata } from "./testService.ts"

type Request = Partial<Message>

export interface TestClient {
  Unary(
    request: Request,
    metadata: Metadata,
    options: object,
    done: (error: ServiceError | null, answer?: Message) => void
  ): ClientUnaryCall
  ClientStream(
    metadata: Metadata,
    options: object,
    done: (error: ServiceError | null, answer?: Message) => void
  ): ClientWritableStream<Request>
  ServerStream(request: Request, metadata: Metadata, options: object): ClientReadableStream<Message>
  BidiStream(metadata: Metadata, options: object): ClientDuplexStream<Request, Message>
}

export interface Case {
  readonly name: string
  /** Without flow control the Go library stops reading a tunnel for a handler that does not read. */
  readonly needsFlowControl?: boolean
  /** Mostly waits, so that it runs beside others. */
  readonly waits?: boolean
  readonly run: (client: TestClient) => Promise<void>
}

interface Ended {
  readonly code: number
  readonly messages: ReadonlyArray<Message>
  readonly headers: Metadata
  readonly trailers: Metadata
}

type Call = ClientUnaryCall | ClientReadableStream<Message> | ClientDuplexStream<Request, Message>

const ended = (
  start: (
    done: (error: ServiceError | null, answer?: Message) => void
  ) => Call | ClientWritableStream<Request>,
  streaming: boolean
): Promise<Ended> =>
  new Promise((resolve) => {
    const messages: Array<Message> = []
    let headers = new Metadata()
    const call = start((error, answer) => {
      if (error === null && answer !== undefined) messages.push(answer)
    })
    const events: NodeJS.EventEmitter = call
    events.on("metadata", (received: Metadata) => {
      headers = received
    })
    events.on("error", () => {})
    if (streaming)
      (call as ClientReadableStream<Message>).on("data", (message: Message) => messages.push(message))
    let status: { code: number; metadata: Metadata } | undefined
    const settle = () => {
      if (status !== undefined) resolve({ code: status.code, messages, headers, trailers: status.metadata })
    }
    events.on("status", (received: { code: number; metadata: Metadata }) => {
      status = received
      // A single answer comes by the callback, a turn after the status at the latest.
      if (!streaming) setImmediate(settle)
      else if (received.code !== Code.OK) settle()
    })
    if (streaming) (call as ClientReadableStream<Message>).on("end", () => setImmediate(settle))
  })

const check = (what: string, got: unknown, wanted: unknown): void => {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`${what} is ${a?.slice(0, 200)} and not ${b?.slice(0, 200)}`)
}

const requestMetadata = toMetadata({
  foo: Buffer.from("bar"),
  "bin-bin": Buffer.from("some text, which is all that the Go library carries")
})
const headers = { "head-a": Buffer.from("1"), "head-b": Buffer.from("two") }
const trailers = { "tail-a": Buffer.from("3"), "tail-b": Buffer.from("four") }
const details: ReadonlyArray<Any> = [
  { type_url: "type.googleapis.com/google.protobuf.StringValue", value: Buffer.from("0a036f6e65", "hex") },
  { type_url: "type.googleapis.com/google.protobuf.Int64Value", value: Buffer.from("082a", "hex") }
]

interface Kind {
  readonly name: string
  readonly streaming: boolean
  readonly start: (
    client: TestClient,
    request: Request,
    options: object,
    done: (error: ServiceError | null, answer?: Message) => void
  ) => ReturnType<Parameters<typeof ended>[0]>
}

const bidi =
  (halfDuplex: boolean): Kind["start"] =>
  (client, request, options) => {
    const call = client.BidiStream(requestMetadata, options)
    call.write({ ...request, count: halfDuplex ? -1 : 0, code: 0, delay_millis: 0 })
    call.write({ ...request, headers: {}, count: 0, code: 0 })
    if (request.code) call.write({ ...request, headers: {}, delay_millis: 0 })
    call.end()
    return call
  }

const kinds: ReadonlyArray<Kind> = [
  {
    name: "unary",
    streaming: false,
    start: (client, request, options, done) => client.Unary(request, requestMetadata, options, done)
  },
  {
    name: "client stream",
    streaming: false,
    start: (client, request, options, done) => {
      const call = client.ClientStream(requestMetadata, options, done)
      call.write({ payload: Buffer.from("first") })
      call.write(request)
      call.end()
      return call
    }
  },
  {
    name: "server stream",
    streaming: true,
    start: (client, request, options) =>
      client.ServerStream({ ...request, count: 2 }, requestMetadata, options)
  },
  { name: "half-duplex stream", streaming: true, start: bidi(true) },
  { name: "full-duplex stream", streaming: true, start: bidi(false) }
]

const payload = Buffer.from("payload")

const success = async (kind: Kind, client: TestClient): Promise<void> => {
  const request = { payload, headers, trailers }
  const end = await ended((done) => kind.start(client, request, {}, done), kind.streaming)
  check("the code", end.code, Code.OK)
  check("the number of messages", end.messages.length, kind.streaming ? 2 : 1)
  for (const message of end.messages) {
    check("the payload", message.payload.toString(), "payload")
    check("the echoed metadata", message.headers["foo"]?.toString(), "bar")
    check(
      "the echoed binary metadata",
      message.headers["bin-bin"]?.toString(),
      requestMetadata.get("bin-bin")[0]?.toString()
    )
  }
  for (const [key, value] of Object.entries(headers)) check(key, end.headers.get(key), [value.toString()])
  for (const [key, value] of Object.entries(trailers)) check(key, end.trailers.get(key), [value.toString()])
}

const failure = async (kind: Kind, client: TestClient): Promise<void> => {
  const request = { payload, headers, trailers, code: Code.RESOURCE_EXHAUSTED, error_details: details }
  const end = await ended((done) => kind.start(client, request, {}, done), kind.streaming)
  check("the code", end.code, Code.RESOURCE_EXHAUSTED)
  for (const [key, value] of Object.entries(trailers)) check(key, end.trailers.get(key), [value.toString()])
  const rich = end.trailers.get("grpc-status-details-bin")[0]
  if (!Buffer.isBuffer(rich)) throw new Error("the status has no details")
  check(
    "the details",
    decodeStatus(rich).map(({ type_url, value }) => [type_url, value.toString("hex")]),
    details.map(({ type_url, value }) => [type_url, value.toString("hex")])
  )
}

const timeout = async (kind: Kind, client: TestClient): Promise<void> => {
  const options = { deadline: Date.now() + 100 }
  const end = await ended(
    (done) => kind.start(client, { payload, delay_millis: 500 }, options, done),
    kind.streaming
  )
  check("the code", end.code, Code.DEADLINE_EXCEEDED)
}

const cancel = async (kind: Kind, client: TestClient): Promise<void> => {
  const end = await ended((done) => {
    const call = kind.start(client, { payload, delay_millis: 500 }, {}, done)
    void later(100).then(() => call.cancel())
    return call
  }, kind.streaming)
  check("the code", end.code, Code.CANCELLED)
}

const unary = (client: TestClient, request: Request): Promise<Message> =>
  new Promise((resolve, reject) => {
    client.Unary(request, new Metadata(), {}, (error, answer) =>
      error === null && answer !== undefined ? resolve(answer) : reject(error)
    )
  })

// The last two make messages of exactly one chunk and of exactly one window.
const sizes = [
  0,
  1,
  16_383,
  16_384,
  16_385,
  65_535,
  65_536,
  65_537,
  100_000,
  1 << 20,
  5 << 20,
  16_380,
  65_532
]

/** How long a handler sleeps while it leaves messages unread: longer than what others then do can take. */
const stallMillis = 8_000

const stalled = async (client: TestClient): Promise<void> => {
  const slow = client.BidiStream(new Metadata(), {})
  slow.on("error", () => {})
  let answered = false
  slow.on("data", () => {
    answered = true
  })
  for (let count = 0; count < 2; count++)
    slow.write({ delay_millis: stallMillis, payload: Buffer.alloc(40_000) })
  const counts = await Promise.all(
    Array.from(
      { length: 10 },
      () =>
        new Promise<number>((resolve, reject) => {
          const call = client.ClientStream(new Metadata(), {}, (error, answer) =>
            error === null ? resolve(answer?.count ?? -1) : reject(error)
          )
          for (let count = 0; count < 20; count++) call.write({ payload: Buffer.alloc(20_000) })
          call.end()
        })
    )
  )
  check("whether the stalled handler went on first", answered, false)
  slow.cancel()
  check("the messages that the others sent", counts, Array(10).fill(20))
}

const callers = async (client: TestClient): Promise<void> => {
  const caller = async () => {
    for (let count = 0; count < 200; count++) await unary(client, {})
  }
  await Promise.all(Array.from({ length: 10 }, caller))
}

const mixed = async (client: TestClient): Promise<void> => {
  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, index) => unary(client, { payload: Buffer.alloc(index * 1_500, index) }))
  )
  answers.forEach((answer, index) => {
    check(`the answer to call ${index}`, answer.payload.equals(Buffer.alloc(index * 1_500, index)), true)
  })
}

export const cases: ReadonlyArray<Case> = [
  ...kinds.flatMap((kind) => [
    { name: `${kind.name}, success`, waits: true, run: (client: TestClient) => success(kind, client) },
    { name: `${kind.name}, failure`, waits: true, run: (client: TestClient) => failure(kind, client) },
    { name: `${kind.name}, timeout`, waits: true, run: (client: TestClient) => timeout(kind, client) },
    { name: `${kind.name}, cancel`, waits: true, run: (client: TestClient) => cancel(kind, client) }
  ]),
  ...sizes.map((size) => ({
    name: `${size} bytes both ways`,
    run: async (client: TestClient) => {
      const answer = await unary(client, { payload: Buffer.alloc(size, 7) })
      check("the payload", answer.payload.equals(Buffer.alloc(size, 7)), true)
    }
  })),
  { name: "a stalled reader holds nobody up", run: stalled, needsFlowControl: true },
  { name: "ten callers", run: callers },
  { name: "a hundred calls of mixed size at a time", run: mixed }
]
