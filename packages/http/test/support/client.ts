/**
 * Clients that do exactly what a test says, and servers of ours with their records.
 */
import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { type EdgeOptions, type EdgeRecord, nodeEdge, type PlainEdge } from "@curfew/http"

const pending = <A>(): { readonly promise: Promise<A>; readonly resolve: (value: A) => void } => {
  let resolve!: (value: A) => void
  const promise = new Promise<A>((onValue) => {
    resolve = onValue
  })
  return { promise, resolve }
}

export interface Gate<A> {
  readonly promise: Promise<A>
  readonly open: (value: A) => void
}

export const gate = <A = void>(): Gate<A> => {
  const { promise, resolve } = pending<A>()
  return { promise, open: resolve }
}

/** A list that can be waited for. */
export class Told<A> {
  readonly all: Array<A> = []
  readonly #waiters = new Set<() => void>()
  readonly add = (one: A): void => {
    this.all.push(one)
    for (const waiter of this.#waiters) waiter()
  }
  readonly until = (count: number): Promise<ReadonlyArray<A>> => {
    const { promise, resolve } = pending<ReadonlyArray<A>>()
    const look = (): void => {
      if (this.all.length < count) return
      this.#waiters.delete(look)
      resolve(this.all)
    }
    this.#waiters.add(look)
    look()
    return promise
  }
}

/** An edge whose records are kept. */
export const recording = (
  options: Parameters<typeof nodeEdge>[0] & EdgeOptions = {}
): { readonly edge: PlainEdge; readonly records: Told<EdgeRecord> } => {
  const records = new Told<EdgeRecord>()
  return { edge: nodeEdge({ ...options, onRecord: records.add }), records }
}

/** Any server, listening on 127.0.0.1. */
export const listen = async (server: {
  readonly listen: (port: number, host: string) => unknown
  readonly address: () => unknown
  readonly once: (event: string, listener: () => void) => unknown
}): Promise<number> => {
  const listening = gate()
  server.once("listening", () => listening.open())
  server.listen(0, "127.0.0.1")
  await listening.promise
  return (server.address() as { port: number }).port
}

/** A socket, and what came over it. */
export class Raw {
  readonly socket: Socket
  readonly #heard = new Told<string>()
  readonly closed: Promise<unknown>

  constructor(socket: Socket) {
    this.socket = socket
    socket.setEncoding("latin1")
    socket.on("data", this.#heard.add)
    socket.on("error", () => {})
    socket.on("end", () => socket.end())
    const closed = gate()
    socket.once("close", () => closed.open())
    this.closed = closed.promise
  }

  get text(): string {
    return this.#heard.all.join("")
  }

  readonly send = (text: string): void => {
    this.socket.write(text, "latin1")
  }

  /** Everything up to where this occurs. */
  readonly until = async (word: string, times = 1): Promise<string> => {
    let count = 0
    while (this.text.split(word).length <= times) {
      await this.#heard.until(count + 1)
      count = this.#heard.all.length
    }
    return this.text
  }
}

export const raw = async (port: number): Promise<Raw> => {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true })
  await once(socket, "connect")
  return new Raw(socket)
}

export const get = (path = "/", headers = ""): string =>
  `GET ${path} HTTP/1.1\r\nhost: localhost\r\n${headers}\r\n`

/** Resolves when the signal is aborted. */
export const aborted = (signal: AbortSignal): Promise<unknown> => {
  const { promise, resolve } = pending<unknown>()
  if (signal.aborted) resolve(signal.reason)
  else signal.addEventListener("abort", () => resolve(signal.reason), { once: true })
  return promise
}
