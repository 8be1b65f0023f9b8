/**
 * Requests to one server over connections that are kept from load to load, each sending its next request when its last one
 * was answered, and the check of every answer.
 *
 * Invariants:
 * 1. No pipelining: a connection of HTTP/1.1, and a stream's place on one of HTTP/2, has one request under way.
 * 2. An answer that is not the one to this very request fails the load; a connection that breaks fails the load that is under
 *    way, or the next.
 * 3. Nothing is opened or closed while a load is measured.
 */
import { type ClientHttp2Session, connect } from "node:http2"
import { createConnection, type Socket } from "node:net"

export type Method = "GET" | "POST"

export interface Target {
  readonly port: number
  readonly http2: boolean
  readonly connections: number
}

export interface Load {
  readonly port: number
  readonly method: Method
  readonly requests: number
}

/** Gives the numbers of a load's requests, until there are no more. */
type Draw = () => number | undefined

/** A place for one request after the other. */
type Place = (method: Method, draw: Draw) => Promise<void>

interface Connections {
  readonly places: ReadonlyArray<Place>
  readonly close: () => void
}

interface Exchange {
  readonly path: string
  readonly body: string
  readonly expected: string
}

const exchange = (method: Method, n: number): Exchange =>
  method === "GET"
    ? {
        path: `/items/${n}`,
        body: "",
        expected: `{"id":"${n}","name":"a small item","tags":["one","two"],"price":42}`
      }
    : {
        path: "/sums",
        body: `{"left":${n},"right":1000}`,
        expected: `{"sum":${n + 1000},"left":${n},"right":1000}`
      }

const wrong = (status: string, body: string, expected: string): Error =>
  new Error(`The answer was ${status} ${JSON.stringify(body)} and not 200 ${JSON.stringify(expected)}.`)

class Http1 {
  readonly #socket: Socket
  #received = ""
  #expected = ""
  #method: Method = "GET"
  #draw: Draw = () => undefined
  #done: (() => void) | undefined
  #failed: ((error: Error) => void) | undefined
  #broken: Error | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding("latin1")
    socket.on("error", (error) => this.#fail(error))
    socket.on("close", () => this.#fail(new Error("The server closed a connection that was to be kept.")))
    socket.on("data", (part: string) => this.#take(part))
  }

  static open(port: number): Promise<Http1> {
    return new Promise((resolve, reject) => {
      const socket = createConnection({ port, host: "127.0.0.1", noDelay: true }, () => {
        socket.off("error", reject)
        resolve(new Http1(socket))
      })
      socket.once("error", reject)
    })
  }

  readonly run: Place = (method, draw) =>
    new Promise((resolve, reject) => {
      if (this.#broken !== undefined) return reject(this.#broken)
      this.#method = method
      this.#draw = draw
      this.#done = resolve
      this.#failed = reject
      this.#send()
    })

  close(): void {
    this.#socket.removeAllListeners("close")
    this.#socket.destroy()
  }

  #send(): void {
    const n = this.#draw()
    if (n === undefined) {
      this.#done?.()
      return
    }
    const { body, expected, path } = exchange(this.#method, n)
    this.#expected = expected
    this.#received = ""
    const head = `${this.#method} ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\n`
    this.#socket.write(
      this.#method === "GET"
        ? `${head}\r\n`
        : `${head}content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`
    )
  }

  #take(part: string): void {
    this.#received += part
    const end = this.#received.indexOf("\r\n\r\n")
    if (end < 0) return
    const body = bodyOf(this.#received, end)
    if (body === undefined) return
    if (this.#received.startsWith("HTTP/1.1 200") && body === this.#expected) {
      this.#send()
      return
    }
    this.#fail(wrong(this.#received.slice(9, 12), body, this.#expected))
    this.#socket.destroy()
  }

  #fail(error: Error): void {
    this.#broken ??= error
    this.#failed?.(this.#broken)
  }
}

/** The whole body, or nothing while parts of it are missing. */
const bodyOf = (received: string, end: number): string | undefined => {
  const head = received.slice(0, end).toLowerCase()
  const at = head.indexOf("\r\ncontent-length:")
  if (at >= 0) {
    const length = Number.parseInt(head.slice(at + 17), 10)
    return received.length < end + 4 + length ? undefined : received.slice(end + 4)
  }
  if (!head.includes("transfer-encoding: chunked")) throw new Error("An answer did not say how long it is.")
  if (!received.endsWith("0\r\n\r\n")) return undefined
  let body = ""
  for (let from = end + 4; ; ) {
    const line = received.indexOf("\r\n", from)
    const length = Number.parseInt(received.slice(from, line), 16)
    if (length === 0) return body
    body += received.slice(line + 2, line + 2 + length)
    from = line + 2 + length + 2
  }
}

const overHttp2 = (session: ClientHttp2Session, method: Method, draw: Draw): Promise<void> =>
  new Promise((resolve, reject) => {
    const send = (): void => {
      const n = draw()
      if (n === undefined) {
        resolve()
        return
      }
      const { body, expected, path } = exchange(method, n)
      const headers = { ":method": method, ":path": path, accept: "application/json" }
      const stream = session.request(
        method === "GET" ? headers : { ...headers, "content-type": "application/json" },
        { endStream: method === "GET" }
      )
      let status = 0
      let received = ""
      stream.setEncoding("latin1")
      stream.on("response", (head) => {
        status = head[":status"] ?? 0
      })
      stream.on("data", (part: string) => {
        received += part
      })
      stream.on("error", reject)
      stream.on("end", () => {
        if (status !== 200 || received !== expected) reject(wrong(String(status), received, expected))
        else send()
      })
      if (method === "POST") stream.end(body)
    }
    send()
  })

const http1 = async ({ connections, port }: Target): Promise<Connections> => {
  const opened = await Promise.all(Array.from({ length: connections }, () => Http1.open(port)))
  return {
    places: opened.map((one) => one.run),
    close: () => {
      for (const one of opened) one.close()
    }
  }
}

/** As many streams as HTTP/1.1 has connections, over a few of them. */
const http2 = async ({ connections, port }: Target): Promise<Connections> => {
  const sessions = await Promise.all(
    Array.from(
      { length: 4 },
      () =>
        new Promise<ClientHttp2Session>((resolve, reject) => {
          const session = connect(`http://127.0.0.1:${port}`, () => resolve(session))
          session.once("error", reject)
        })
    )
  )
  const broken = new Promise<never>((_, reject) => {
    for (const session of sessions) session.on("error", reject)
  })
  broken.catch(() => {})
  return {
    places: Array.from({ length: connections }, (_, i) => (method, draw) => {
      const session = sessions[i % sessions.length] as ClientHttp2Session
      return Promise.race([overHttp2(session, method, draw), broken])
    }),
    close: () => {
      for (const session of sessions) session.destroy()
    }
  }
}

const open = new Map<number, Connections>()

/** Connects to a server. */
export const dial = async (target: Target): Promise<void> => {
  open.set(target.port, await (target.http2 ? http2(target) : http1(target)))
}

/** Leaves a server. */
export const leave = ({ port }: { readonly port: number }): void => {
  open.get(port)?.close()
  open.delete(port)
}

/** Sends it all; gives the seconds that it took. */
export const load = async ({ method, port, requests }: Load): Promise<number> => {
  const connections = open.get(port)
  if (connections === undefined) throw new Error(`Nothing is connected to port ${port}; dial it first.`)
  let next = 0
  const draw: Draw = () => (next < requests ? next++ : undefined)
  const began = performance.now()
  await Promise.all(connections.places.map((run) => run(method, draw)))
  return (performance.now() - began) / 1000
}
