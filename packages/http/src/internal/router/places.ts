/**
 * The requests that a server has under way, whether they stand behind an edge or not.
 *
 * Invariants
 * 1. A request enters when node emits it, before anybody else hears of it.
 * 2. It leaves when its response is over and its edge has made its record: a shielded handler whose client has left is
 *    still under way.
 * 3. Only an edge can stop a request; the others end with the fibers of their server.
 */
import type { IncomingMessage } from "node:http"
import type { Duplex } from "node:stream"
import type { CancelReason } from "@curfew/reason"
import * as Effect from "effect/Effect"
import type { NodeServer } from "../listening.ts"
import { isHttp2, isOver, type NodeRequest, type NodeResponse } from "../peer.ts"
import type { Entry, Table } from "../table.ts"
import { afterTurn } from "../turn.ts"

/** An edge that has the request. */
export type Holder = Pick<Entry, "stop" | "abandon">

class Place implements Entry {
  entered = false
  before: Entry | undefined = undefined
  after: Entry | undefined = undefined
  readonly id: string
  readonly method: string
  readonly url: string
  readonly transport: Entry["transport"]
  readonly stopping: () => void
  readonly #table: Table
  readonly #holders = new Set<Holder>()
  #over = false

  constructor(table: Table, request: NodeRequest, transport: Entry["transport"], stopping: () => void) {
    this.id = table.nextId()
    this.method = request.method ?? "GET"
    this.url = request.url ?? "/"
    this.transport = transport
    this.stopping = stopping
    this.#table = table
    table.enter(this)
  }

  readonly stop = (reason: CancelReason): void => {
    for (const { stop } of [...this.#holders]) stop(reason)
  }

  readonly abandon: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach([...this.#holders], ({ abandon }) => abandon, { discard: true })
  )

  /** Keeps the place until what it gives is called. */
  hold(holder: Holder): () => void {
    this.#holders.add(holder)
    return () => {
      this.#holders.delete(holder)
      this.#look()
    }
  }

  readonly over = (): void => {
    this.#over = true
    this.#look()
  }

  #look(): void {
    if (this.#over && this.#holders.size === 0) this.#table.leave(this)
  }
}

/** On the request itself: of a weak map the collector would keep what is in it for longer than the requests. */
const placeOf = /* @__PURE__ */ Symbol("@curfew/http/place")

interface Placed {
  [placeOf]?: Place
}

/** Keeps the place of a request, where its server has one for it. Returns the release. */
export const hold = (source: object, holder: Holder): (() => void) =>
  (source as Placed)[placeOf]?.hold(holder) ?? (() => {})

/** Puts all requests of a server into a table. To be called before anybody listens to its requests. */
export const enterAll = (given: NodeServer, table: Table): void => {
  // The members used here exist on every server kind, with listener types that differ per kind.
  const server = given as import("node:http").Server
  const enter = (request: NodeRequest, response: NodeResponse): void => {
    const http2 = isHttp2(request)
    const closing = (): void => {
      if (!http2 && !response.headersSent) response.setHeader("connection", "close")
    }
    const place = new Place(table, request, http2 ? "http2" : "http1", closing)
    ;(request as Placed)[placeOf] = place
    const turned = (): void => {
      if (isOver(response)) {
        place.over()
        return
      }
      response.on("finish", place.over)
      response.on("close", place.over)
    }
    // Most answers are out in the turn in which their requests came.
    afterTurn({ turned })
    if (table.refusing) closing()
  }
  server.on("request", enter)
  server.on("checkContinue", enter)
  server.on("upgrade", (request: IncomingMessage, socket: Duplex) => {
    const place = new Place(table, request, "ws", () => {})
    ;(request as Placed)[placeOf] = place
    socket.once("close", place.over)
  })
}
