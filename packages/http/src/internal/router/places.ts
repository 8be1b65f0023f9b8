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
import { afterTurn, type Turned } from "../turn.ts"

/** An edge that has the request. */
export type Holder = Pick<Entry, "stop" | "abandon">

class Place implements Entry, Turned {
  entered = false
  before: Entry | undefined = undefined
  after: Entry | undefined = undefined
  readonly method: string
  readonly url: string
  readonly transport: Entry["transport"]
  readonly #number: number
  readonly #table: Table
  readonly #response: NodeResponse | undefined
  // Mostly one: an edge within another one is the same.
  #holder: Holder | undefined
  #others: Set<Holder> | undefined
  #over = false

  /** Without a response: of a connection that becomes another. */
  constructor(table: Table, request: NodeRequest, response: NodeResponse | undefined) {
    this.#number = table.nextNumber()
    this.method = request.method ?? "GET"
    this.url = request.url ?? "/"
    this.transport = response === undefined ? "ws" : isHttp2(request) ? "http2" : "http1"
    this.#response = response
    this.#table = table
    table.enter(this)
  }

  get id(): string {
    return `http-${this.#number}`
  }

  stop(reason: CancelReason): void {
    this.#holder?.stop(reason)
    for (const holder of [...(this.#others ?? [])]) holder.stop(reason)
  }

  stopping(): void {
    const response = this.#response
    if (this.transport === "http1" && response?.headersSent === false)
      response.setHeader("connection", "close")
  }

  get abandon(): Effect.Effect<void> {
    return Effect.suspend(() =>
      Effect.forEach(
        [...(this.#holder === undefined ? [] : [this.#holder]), ...(this.#others ?? [])],
        ({ abandon }) => abandon,
        { discard: true }
      )
    )
  }

  /** Keeps the place until it is released. */
  hold(holder: Holder): void {
    if (this.#holder === undefined) this.#holder = holder
    else {
      this.#others ??= new Set()
      this.#others.add(holder)
    }
  }

  release(holder: Holder): void {
    if (this.#holder === holder) this.#holder = undefined
    else this.#others?.delete(holder)
    this.#look()
  }

  /** Most answers are out in the turn in which their requests came. */
  turned(): void {
    const response = this.#response
    if (response === undefined) return
    if (isOver(response)) {
      this.over()
      return
    }
    const over = (): void => this.over()
    response.on("finish", over)
    response.on("close", over)
  }

  over(): void {
    this.#over = true
    this.#look()
  }

  #look(): void {
    if (this.#over && this.#holder === undefined && (this.#others?.size ?? 0) === 0) this.#table.leave(this)
  }
}

/** On the request itself: of a weak map the collector would keep what is in it for longer than the requests. */
const placeOf = /* @__PURE__ */ Symbol("@curfew/http/place")

interface Placed {
  [placeOf]?: Place
}

/** Keeps the place of a request, where its server has one for it, until it is released. */
export const hold = (source: object, holder: Holder): void => (source as Placed)[placeOf]?.hold(holder)

export const release = (source: object, holder: Holder): void => (source as Placed)[placeOf]?.release(holder)

/** Puts all requests of a server into a table. To be called before anybody listens to its requests. */
export const enterAll = (given: NodeServer, table: Table): void => {
  // The members used here exist on every server kind, with listener types that differ per kind.
  const server = given as import("node:http").Server
  const enter = (request: NodeRequest, response: NodeResponse): void => {
    const place = new Place(table, request, response)
    ;(request as Placed)[placeOf] = place
    afterTurn(place)
    if (table.refusing) place.stopping()
  }
  server.on("request", enter)
  server.on("checkContinue", enter)
  server.on("upgrade", (request: IncomingMessage, socket: Duplex) => {
    const place = new Place(table, request, undefined)
    ;(request as Placed)[placeOf] = place
    socket.once("close", () => place.over())
  })
}
