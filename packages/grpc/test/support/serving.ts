/** A service of all four kinds, served over a socket and through a tunnel, and called with plain grpc-js stubs. */
import { OnUnhandled, Owner, TaskScope, type Unhandled } from "@curfew/scope"
import { openForward, Services, TunnelService } from "@curfew/tunnel"
import * as grpc from "@grpc/grpc-js"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { type MethodsOf, Server, type ServerCall, ServerCalls } from "../../src/index.ts"
import type { HandlersOf, RequestStream, ServerOptions } from "../../src/Server.ts"

export const { status: Code } = grpc

const encode = (text: string): Buffer => {
  if (text === "unencodable") throw new Error("no way to write this")
  return Buffer.from(text)
}

const decode = (bytes: Buffer): string => {
  const text = bytes.toString()
  if (text === "undecodable") throw new Error("no way to read this")
  return text
}

const method = <RequestStream extends boolean, ResponseStream extends boolean>(
  name: string,
  requestStream: RequestStream,
  responseStream: ResponseStream
) => ({
  path: `/curfew.test.Words/${name}`,
  requestStream,
  responseStream,
  requestSerialize: (text: string) => Buffer.from(text),
  requestDeserialize: decode,
  responseSerialize: encode,
  responseDeserialize: (bytes: Buffer) => bytes.toString()
})

export const definition = {
  Unary: method("Unary", false, false),
  ClientStream: method("ClientStream", true, false),
  ServerStream: method("ServerStream", false, true),
  Bidi: method("Bidi", true, true)
}

export type Handlers = HandlersOf<MethodsOf<typeof definition>>
export type Call = ServerCall.ServerCall
export type Requests = RequestStream<string>

export const kinds = ["Unary", "ClientStream", "ServerStream", "Bidi"] as const
export type Kind = (typeof kinds)[number]

/** Answers with what came. */
export const echo = {
  Unary: (request: string) => Effect.succeed(request),
  ClientStream: (requests: Requests) => Effect.map(Stream.runCollect(requests), (all) => all.join("")),
  ServerStream: (request: string) => Stream.fromIterable(request),
  Bidi: (requests: Requests) => requests
} satisfies Handlers

/** The same behaviour in all four kinds: the effect runs, and its value is the one answer. */
export const inAllKinds = (
  run: (call: Call, requests?: Requests) => Effect.Effect<string, unknown, unknown>,
  mark: <H extends (...args: never) => unknown>(handler: H) => H = (handler) => handler
): Handlers => ({
  Unary: mark((_request: string, call: Call) => run(call)),
  ClientStream: mark((requests: Requests, call: Call) => run(call, requests)),
  ServerStream: mark((_request: string, call: Call) => Stream.fromEffect(run(call))),
  Bidi: mark((requests: Requests, call: Call) => Stream.fromEffect(run(call, requests)))
})

export interface Stub extends grpc.Client {
  Unary(
    request: string,
    metadata: grpc.Metadata,
    options: grpc.CallOptions,
    callback: grpc.requestCallback<string>
  ): grpc.ClientUnaryCall
  ClientStream(
    metadata: grpc.Metadata,
    options: grpc.CallOptions,
    callback: grpc.requestCallback<string>
  ): grpc.ClientWritableStream<string>
  ServerStream(
    request: string,
    metadata: grpc.Metadata,
    options: grpc.CallOptions
  ): grpc.ClientReadableStream<string>
  Bidi(metadata: grpc.Metadata, options: grpc.CallOptions): grpc.ClientDuplexStream<string, string>
}

export const Stub = grpc.makeGenericClientConstructor(definition, "Words") as unknown as new (
  address: string,
  credentials: grpc.ChannelCredentials,
  options?: Partial<grpc.ClientOptions>
) => Stub

/** How a call of any kind ended, as its client saw it. */
interface Answer {
  readonly code: number
  readonly details: string
  readonly messages: ReadonlyArray<string>
  readonly trailers: grpc.Metadata
  readonly headers: grpc.Metadata | undefined
}

export interface Started {
  readonly answer: Effect.Effect<Answer>
  readonly call: {
    cancel(): void
    write?(text: string): boolean
    end?(): void
    on(event: string, listener: (...args: ReadonlyArray<never>) => void): unknown
  }
}

export const metadata = (entries: Readonly<Record<string, grpc.MetadataValue>> = {}): grpc.Metadata => {
  const made = new grpc.Metadata()
  for (const [key, value] of Object.entries(entries)) made.set(key, value)
  return made
}

/** Starts a call of any kind. One that streams requests stays open until `call.end()`. */
export const call = (
  stub: Stub,
  kind: Kind,
  options: {
    readonly request?: string
    readonly metadata?: grpc.Metadata
    readonly call?: grpc.CallOptions
  } = {}
): Started => {
  const request = options.request ?? "q"
  const sent = options.metadata ?? new grpc.Metadata()
  const how = options.call ?? {}
  const messages: Array<string> = []
  let headers: grpc.Metadata | undefined
  const done = Deferred.makeUnsafe<Answer>()
  const single = (_error: unknown, value?: string): void => void (value !== undefined && messages.push(value))
  const made =
    kind === "Unary"
      ? stub.Unary(request, sent, how, single)
      : kind === "ClientStream"
        ? stub.ClientStream(sent, how, single)
        : kind === "ServerStream"
          ? stub.ServerStream(request, sent, how)
          : stub.Bidi(sent, how)
  const on = made.on.bind(made) as (event: string, listener: (value: never) => void) => unknown
  on("error", () => undefined)
  on("metadata", (value: grpc.Metadata) => {
    headers = value
  })
  if (kind === "ServerStream" || kind === "Bidi") on("data", (message: string) => messages.push(message))
  on("status", ({ code, details, metadata: trailers }: grpc.StatusObject) =>
    Deferred.doneUnsafe(done, Effect.succeed({ code, details, messages, trailers, headers }))
  )
  if (kind === "ClientStream" || kind === "Bidi")
    (made as unknown as { write(text: string): void }).write(request)
  return { answer: Deferred.await(done), call: made as never }
}

/** Notes what happens, in order, and tells when something did. */
export const notebook = () => {
  const seen: Array<string> = []
  const waiting = new Set<() => void>()
  const note = (what: string): void => {
    seen.push(what)
    for (const look of [...waiting]) look()
  }
  const until = (holds: () => boolean): Effect.Effect<void> =>
    Effect.callback((resume) => {
      const look = (): void => {
        if (!holds()) return
        waiting.delete(look)
        resume(Effect.void)
      }
      waiting.add(look)
      look()
      return Effect.sync(() => void waiting.delete(look))
    })
  return {
    seen,
    note,
    noting: (what: string) => Effect.sync(() => note(what)),
    awaits: (what: string, times = 1) => until(() => seen.filter((one) => one === what).length >= times),
    until
  }
}

export type Transport = "grpc" | "tunnel"
export const transports: ReadonlyArray<Transport> = ["grpc", "tunnel"]

export interface Serving {
  readonly stub: Stub
  readonly address: string
  readonly calls: ServerCalls.ServerCalls
  readonly logs: ReadonlyArray<string>
  readonly spans: ReadonlyArray<Tracer.Span>
  readonly unhandled: ReadonlyArray<Unhandled>
  readonly owner: TaskScope.TaskScope
  /** Waits until no call of the server is left. */
  readonly idle: Effect.Effect<unknown>
  readonly metric: (
    metric: Metric.Metric<number, { readonly count: number }>,
    more?: Metric.Metric.Attributes
  ) => number
}

export interface ServingOptions extends ServerOptions {
  readonly calls?: ServerCalls.ServerCalls
  readonly callsOptions?: ServerCalls.ServerCallsOptions
  readonly grpc?: grpc.ServerOptions
  readonly channel?: grpc.ChannelOptions
  readonly provide?: Context.Context<never>
}

/** Listens on a free port until the scope ends, then drops every connection. */
export const listen = (
  add: (server: grpc.Server) => void,
  options?: grpc.ServerOptions
): Effect.Effect<{ readonly server: grpc.Server; readonly address: string }, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback((resume) => {
      const server = new grpc.Server(options)
      add(server)
      server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
        if (error) throw error
        resume(Effect.succeed({ server, address: `127.0.0.1:${port}` }))
      })
    }),
    ({ server }) => Effect.sync(() => server.forceShutdown())
  )

export const stubTo = (
  address: string,
  options?: grpc.ChannelOptions
): Effect.Effect<Stub, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new Stub(address, grpc.credentials.createInsecure(), options)),
    (stub) => Effect.sync(() => stub.close())
  )

/** What a server under test is watched with. */
export const watching = Effect.gen(function* () {
  const logs: Array<string> = []
  const spans: Array<Tracer.Span> = []
  const unhandled: Array<Unhandled> = []
  const logger = Logger.make(({ cause, logLevel, message, fiber }) => {
    const text = (Array.isArray(message) ? message : [message]).map(String).join(" ")
    const why = cause.reasons.length === 0 ? "" : ` | ${cause.reasons.map((it) => it._tag).join()}`
    const span = fiber.cache.span?._tag === "Span" ? ` @ ${fiber.cache.span.name}` : ""
    logs.push(`${logLevel}: ${text}${why}${span}`)
  })
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const registry = new Map()
  const owner = yield* TaskScope.make({ name: "server" })
  const context = Context.empty().pipe(
    Context.add(Owner, owner),
    Context.add(References.CurrentLoggers, new Set([logger])),
    Context.add(References.MinimumLogLevel, "All" as const),
    Context.add(Tracer.Tracer, tracer),
    Context.add(Metric.MetricRegistry, registry),
    Context.add(OnUnhandled, (it: Unhandled) => Effect.sync(() => unhandled.push(it)))
  ) as Context.Context<Owner>
  return { logs, spans, unhandled, owner, context }
})

/** Serves handlers over one of the transports; the stub speaks plain grpc-js. */
export const serving = (
  transport: Transport,
  handlers: Handlers,
  options: ServingOptions = {}
): Effect.Effect<Serving, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { context: watched, logs, owner, spans, unhandled } = yield* watching
    const context = Context.merge(watched, options.provide ?? Context.empty())
    const { callsOptions, channel, grpc: grpcOptions, provide: _, ...rest } = options
    const calls = options.calls ?? (yield* Effect.provide(ServerCalls.make(callsOptions), context))
    const service = yield* Effect.provide(
      Server.make(definition, handlers, { ...rest, calls }) as Effect.Effect<Server.Service, never, Owner>,
      context
    )
    let stub: Stub
    let address: string
    if (transport === "grpc") {
      const listening = yield* listen(
        (server) => server.addService(service.definition, service.implementation),
        grpcOptions
      )
      address = listening.address
      stub = yield* stubTo(address, channel)
    } else {
      const tunnels = yield* TunnelService.make({
        services: Services.empty.pipe(Services.add(service.definition, service.implementation))
      })
      const listening = yield* listen(tunnels.addTo, grpcOptions)
      address = listening.address
      const opened = yield* Effect.orDie(
        openForward({ address, credentials: grpc.credentials.createInsecure() })
      )
      stub = opened.client(Stub)
    }
    const metric = (
      it: Metric.Metric<number, { readonly count: number }>,
      more: Metric.Metric.Attributes = {}
    ) => Effect.runSync(Effect.provide(Metric.value(Metric.withAttributes(it, more)), context)).count
    return { stub, address, calls, logs, spans, unhandled, owner, idle: calls.drain(), metric }
  })

/** Runs a test in a scope of its own and waits for everything that it started. */
export const run = <A>(test: Effect.Effect<A, unknown, Scope.Scope>): Promise<A> =>
  Effect.runPromise(Effect.scoped(test) as Effect.Effect<A, unknown>)
