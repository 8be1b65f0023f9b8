/**
 * A server and its stages.
 *
 * Invariants
 * 1. Each stage can be run by a shutdown's hook and by the finalizer, in any order and both: it takes effect once.
 * 2. A connection without a request under way does not hold anything up: it is closed when the server stops, or when
 *    the last request on it ends.
 * 3. The report of an edge comes once, with the end of its last server.
 * 4. Requests are answered before their connections are broken off, unless they do not end.
 */
import type { Server as HttpServer } from "node:http"
import type { Http2SecureServer, Http2Server, ServerHttp2Session } from "node:http2"
import type { Server as HttpsServer } from "node:https"
import { Server as NetServer, type Socket } from "node:net"
import { CancelReason } from "@curfew/reason"
import { CleanupBudget, moveOnAfter } from "@curfew/scope"
import { Shutdown } from "@curfew/shutdown"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Edge } from "./edge.ts"
import { isOver, type NodeRequest, type NodeResponse } from "./peer.ts"
import type { Entry } from "./table.ts"
import { afterTurn, endTurn, type Turned } from "./turn.ts"

/** The servers of node that speak HTTP. */
export type NodeServer = HttpServer | HttpsServer | Http2Server | Http2SecureServer

/**
 * What became of the requests that were under way when the servers of an edge stopped, each by its method and URL.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface StopReport {
  readonly drained: number
  readonly cancelled: ReadonlyArray<string>
  readonly abandoned: ReadonlyArray<string>
}

const forced: CancelReason = /* @__PURE__ */ CancelReason.Shutdown({ phase: "force" })

/** How long connections may take to close once their last request was answered. */
const lastBytes = Duration.seconds(2)

export interface AttachOptions {
  /** Cancels what does not stand in the table by itself. To end within the clean-up budget. */
  readonly cancelling?: Effect.Effect<unknown> | undefined
  readonly drain: Duration.Duration
  /** Whoever is given the report does not need its line. What was left behind is logged all the same. */
  readonly quiet?: boolean | undefined
  readonly onStopped?: ((report: StopReport) => void) | undefined
}

export const attach = (
  edge: Edge,
  server: NodeServer,
  options: AttachOptions
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function* () {
    const attached = new Attached(edge, server, options)
    yield* Effect.addFinalizer(() => attached.end)
    yield* Shutdown.onStop(edge.name, attached.stop)
    yield* Shutdown.onDrain(edge.name, attached.drained)
    yield* Shutdown.onForce(edge.name, Effect.andThen(attached.cancel, attached.breakOff))
  })

/** The edges that have requests of a server: its connections are everybody's. */
const edgesOf = new WeakMap<NodeServer, Set<Attached>>()

export class Attached implements Turned {
  readonly #edge: Pick<Edge, "name" | "table">
  readonly #server: NodeServer
  readonly #options: AttachOptions
  readonly #sockets = new Set<Socket>()
  readonly #sessions = new Set<ServerHttp2Session>()
  #waiters: Array<() => void> = []
  readonly #open = new Set<NodeResponse>()
  #fresh: Array<NodeResponse> = []
  #stopped = false
  #ended = false
  #unwatch: () => void = () => {}

  constructor(edge: Pick<Edge, "name" | "table">, server: NodeServer, options: AttachOptions) {
    this.#edge = edge
    this.#server = server
    this.#options = options
    edge.table.servers++
    const all = edgesOf.get(server) ?? new Set()
    edgesOf.set(server, all.add(this))
    const connected = (socket: Socket): void => {
      this.#sockets.add(socket)
      socket.once("close", () => {
        this.#sockets.delete(socket)
        if (this.#sockets.size === 0) for (const waiter of this.#waiters.splice(0)) waiter()
      })
    }
    const opened = (session: ServerHttp2Session): void => {
      this.#sessions.add(session)
      session.once("close", () => this.#sessions.delete(session))
    }
    const requested = (_: NodeRequest, response: NodeResponse): void => {
      if (this.#fresh.push(response) === 1) afterTurn(this)
    }
    server.on("connection", connected)
    server.on("session", opened)
    server.on("request", requested)
    this.#unwatch = () => {
      server.off("connection", connected)
      server.off("session", opened)
      server.off("request", requested)
    }
  }

  /** Only answers that outlive their turn can be in the way of a close. */
  turned(): void {
    for (const response of this.#fresh.splice(0)) {
      if (isOver(response)) continue
      this.#open.add(response)
      const over = (): void => {
        if (this.#open.delete(response) && this.#stopped) this.#closeIdle()
      }
      response.on("finish", over)
      response.on("close", over)
    }
  }

  readonly stop: Effect.Effect<void> = Effect.sync(() => {
    if (this.#stopped) return
    this.#stopped = true
    endTurn()
    const { table } = this.#edge
    table.refuse()
    // Not the server's own: that closes idle connections at once. It may never have listened.
    NetServer.prototype.close.call(this.#server, () => {})
    for (const session of this.#sessions) session.close()
    // A browser connects in advance. Node takes a connection that has never said anything for one that is busy.
    for (const socket of this.#sockets) if (socket.bytesRead === 0) socket.destroy()
    this.#closeIdle()
    const unwatch = this.#unwatch
    const stopLooking = table.onLeave(() => this.#closeIdle())
    this.#unwatch = () => {
      stopLooking()
      unwatch()
    }
  })

  /**
   * To node a connection is idle as soon as its answer has been handed over, and what is still on its way through it
   * is lost when it closes: an answer that somebody still reads puts this off until it is out.
   */
  #closeIdle(): void {
    if (this.#fresh.length > 0) this.turned()
    for (const { writableEnded, writableFinished } of this.#open) {
      if (writableEnded && !writableFinished) return
    }
    if ("closeIdleConnections" in this.#server) this.#server.closeIdleConnections()
  }

  #beginForce(): void {
    const { atForce, entries } = this.#edge.table
    for (const entry of entries) atForce.add(entry)
  }

  readonly drained: Effect.Effect<void> = Effect.suspend(() =>
    Effect.onInterrupt(this.#edge.table.idle, () => Effect.sync(() => this.#beginForce()))
  )

  readonly cancel: Effect.Effect<void> = Effect.andThen(
    this.stop,
    Effect.flatMap(CleanupBudget, (budget) => {
      this.#beginForce()
      for (const entry of [...this.#edge.table.entries]) entry.stop(forced)
      return Effect.andThen(
        this.#options.cancelling ?? Effect.void,
        Effect.asVoid(moveOnAfter(budget)(this.#edge.table.idle))
      )
    })
  )

  readonly #allClosed: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.#sockets.size === 0) return resume(Effect.void)
    this.#waiters.push(() => resume(Effect.void))
    return undefined
  })

  /** Another edge has requests under way on this server. It breaks off what is left at its own end. */
  get #inUse(): boolean {
    return [...(edgesOf.get(this.#server) ?? [])].some((it) => it !== this && it.#edge.table.entries.size > 0)
  }

  /** Lets the last answers out, and destroys what does not close: keep-alive connections, and upgraded ones, too. */
  readonly breakOff: Effect.Effect<void> = Effect.flatMap(CleanupBudget, (budget) =>
    Effect.suspend(() => {
      this.#closeIdle()
      if (this.#inUse) return Effect.void
      return Effect.andThen(
        moveOnAfter(Duration.min(budget, lastBytes))(this.#allClosed),
        Effect.sync(() => {
          if (!this.#inUse) for (const socket of this.#sockets) socket.destroy()
        })
      )
    })
  )

  readonly end: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    if (this.#ended) return
    this.#ended = true
    const { name, table } = this.#edge
    yield* this.stop
    const stage = yield* Shutdown.stage
    if (stage === "running") yield* moveOnAfter(this.#options.drain)(table.idle)
    yield* this.cancel
    const left = new Set(table.entries)
    yield* this.breakOff
    for (const { abandon } of left) yield* abandon
    edgesOf.get(this.#server)?.delete(this)
    this.#unwatch()
    table.servers--
    // The servers of an edge have their requests in common: what became of them is told with the last.
    if (table.servers > 0) return
    const ended = [...table.atStop].filter((entry) => !left.has(entry))
    const byForce = ended.filter((entry) => table.atForce.has(entry))
    const named = ({ method, url }: Entry): string => `${method} ${url}`
    const report: StopReport = {
      drained: ended.length - byForce.length,
      cancelled: byForce.map(named),
      abandoned: [...left].map(named)
    }
    const { abandoned, cancelled, drained } = report
    const counts = `${drained} drained, ${cancelled.length} cancelled, ${abandoned.length} abandoned`
    if (this.#options.quiet !== true) yield* Effect.logInfo(`The server ${name} has stopped: ${counts}.`)
    if (abandoned.length > 0) yield* Effect.logWarning(`Left behind: ${abandoned.join(", ")}.`)
    this.#options.onStopped?.(report)
  })
}
