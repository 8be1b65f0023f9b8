/** Effect's server with an edge on it, and clients over sockets of their own. */
import { createServer, request as httpRequest, type IncomingMessage, type Server } from "node:http"
import { type AddressInfo, connect, type Socket } from "node:net"
import { OnUnhandled, Owner, TaskScope, type Unhandled } from "@curfew/scope"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import { EdgeServer, type EdgeServerOptions } from "../../src/EdgeServer.ts"
import { type EdgeRecord, HttpEdge } from "../../src/index.ts"

export const { text } = HttpServerResponse

export interface Serving {
  readonly port: number
  readonly server: Server
  readonly owner: TaskScope.TaskScope
  /** The server's ends of its connections. */
  readonly sockets: () => ReadonlyArray<Socket>
  /** In the order in which they came. */
  readonly records: ReadonlyArray<EdgeRecord>
  /** Waits until there are so many of them. */
  readonly recorded: (count: number) => Effect.Effect<ReadonlyArray<EdgeRecord>>
  readonly unhandled: ReadonlyArray<Unhandled>
  /** Ends the server, as the end of its program does. */
  readonly stop: Effect.Effect<void>
  /** The levels and first words of everything that was logged. */
  readonly logged: ReadonlyArray<{ readonly level: string; readonly message: string }>
  /** Of each of its lines. */
  readonly annotations: ReadonlyArray<Readonly<Record<string, unknown>>>
}

export interface ServingOptions extends HttpEdge.EdgeOptions {
  readonly server?: () => Server
  /** A server that stops in stages, and not Effect's own. */
  readonly staged?: EdgeServerOptions
  /** Nobody is given the records. */
  readonly unrecorded?: boolean
  /** Whether Effect's own logger is there, too. */
  readonly doubled?: boolean
  /** Of Effect's own server. */
  readonly drain?: Duration.Input
  /** For the server and its handlers. */
  readonly services?: Layer.Layer<never>
}

/** Serves the routes until the scope closes. */
export const serving = <A, E, R>(
  routes: Layer.Layer<A, E, R>,
  options: ServingOptions = {}
): Effect.Effect<Serving, never, Scope.Scope> =>
  Effect.gen(function* () {
    const {
      server: make = createServer,
      services: more = Layer.empty,
      staged,
      drain = "20 seconds",
      doubled = false,
      unrecorded = false,
      ...edge
    } = options
    const owner = yield* TaskScope.make({ name: "server" })
    const records: Array<EdgeRecord> = []
    const unhandled: Array<Unhandled> = []
    const logged: Array<{ level: string; message: string }> = []
    const annotations: Array<Readonly<Record<string, unknown>>> = []
    const told = new Set<() => void>()
    const app = HttpEdge.edge({
      accessLog: false,
      ...edge,
      ...(!unrecorded && {
        onRecord: (record: EdgeRecord) =>
          Effect.sync(() => {
            records.push(record)
            for (const tell of [...told]) tell()
          })
      })
    })(routes)
    const server = make()
    const sockets = new Set<Socket>()
    server.on("connection", (socket: Socket) => {
      sockets.add(socket)
      socket.on("close", () => sockets.delete(socket))
    })
    const services = Layer.mergeAll(
      more,
      Layer.succeed(Owner)(owner),
      Logger.layer([
        Logger.make(({ fiber, logLevel, message }) => {
          annotations.push(fiber.getRef(References.CurrentLogAnnotations))
          logged.push({ level: logLevel, message: String(Array.isArray(message) ? message[0] : message) })
        })
      ])
    )
    const live = HttpRouter.serve(app as never, { disableLogger: !doubled, disableListenLog: true }).pipe(
      Layer.provide(
        staged === undefined
          ? NodeHttpServer.layer(() => server, {
              port: 0,
              host: "127.0.0.1",
              gracefulShutdownTimeout: drain
            })
          : EdgeServer.layer({ port: 0, server: () => server, ...staged })
      ),
      Layer.provide(services)
    )
    const scope = yield* Scope.fork(yield* Effect.scope)
    yield* Effect.orDie(
      Layer.buildWithScope(live as unknown as Layer.Layer<never>, scope).pipe(
        Effect.provideService(OnUnhandled, (report: Unhandled) => Effect.sync(() => unhandled.push(report)))
      )
    )
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
      })
    )
    return {
      stop: Scope.close(scope, Exit.void),
      port: (server.address() as AddressInfo).port,
      server,
      sockets: () => [...sockets],
      owner,
      records,
      unhandled,
      logged,
      annotations,
      recorded: (count) =>
        Effect.callback((resume) => {
          const look = (): void => {
            if (records.length >= count) resume(Effect.succeed(records))
          }
          told.add(look)
          look()
          return Effect.sync(() => told.delete(look))
        })
    }
  })

export interface Wire {
  readonly socket: Socket
  readonly received: () => string
  readonly until: (word: string, times?: number) => Effect.Effect<void>
  readonly closed: Effect.Effect<string>
}

/** A socket that was written to. It is destroyed with its scope. */
export const wire = (port: number, written = ""): Effect.Effect<Wire, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Wire>((resume) => {
      const socket = connect({ host: "127.0.0.1", port, noDelay: true, allowHalfOpen: true })
      let got = ""
      const looks = new Set<() => void>()
      let over = false
      const look = (): void => {
        for (const each of [...looks]) each()
      }
      socket.on("data", (chunk: Buffer) => {
        got += chunk.toString("latin1")
        look()
      })
      socket.on("error", () => undefined)
      socket.on("end", () => socket.end())
      socket.on("close", () => {
        over = true
        look()
      })
      const when = (is: () => boolean): Effect.Effect<string> =>
        Effect.callback<string>((found) => {
          const each = (): void => {
            if (!is()) return
            looks.delete(each)
            found(Effect.succeed(got))
          }
          looks.add(each)
          each()
          return Effect.sync(() => looks.delete(each))
        })
      socket.on("connect", () => {
        if (written !== "") socket.write(written)
        resume(
          Effect.succeed({
            socket,
            received: () => got,
            until: (word, times = 1) => Effect.asVoid(when(() => got.split(word).length > times)),
            closed: when(() => over)
          })
        )
      })
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

export const ask = (path: string, method = "GET", headers = ""): string =>
  `${method} ${path} HTTP/1.1\r\nhost: localhost\r\n${headers}\r\n`

/** A whole answer by node's client, on a connection of its own. */
export const fetched = (
  port: number,
  path: string,
  options: {
    readonly method?: string
    readonly headers?: Record<string, string>
    readonly body?: string
  } = {}
): Effect.Effect<{
  readonly status: number
  readonly body: string
  readonly headers: IncomingMessage["headers"]
}> =>
  Effect.callback((resume) => {
    const { body, headers = {}, method = "GET" } = options
    const sent = httpRequest({ agent: false, host: "127.0.0.1", port, path, method, headers })
    sent.on("error", (error) => resume(Effect.die(error)))
    sent.on("response", (response) => {
      let got = ""
      response.on("data", (chunk: Buffer) => {
        got += chunk.toString()
      })
      response.on("error", (error) => resume(Effect.die(error)))
      response.on("end", () =>
        resume(Effect.succeed({ status: response.statusCode ?? 0, body: got, headers: response.headers }))
      )
    })
    sent.end(body)
    return Effect.sync(() => sent.destroy())
  })

export const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
  Effect.runPromise(Effect.scoped(effect))

/** What a counter has counted, by its attributes. */
export const counted = (
  metric: Metric.Metric<number, { readonly count: number }>,
  attributes: Record<string, string>
): Effect.Effect<number> =>
  Effect.map(Metric.value(Metric.withAttributes(metric, attributes)), ({ count }) => count)
