/**
 * Requests to one server over connections that are kept, each sending its next request when its last one was answered,
 * and the check of every answer.
 *
 * Invariants:
 * 1. No pipelining: a connection of HTTP/1.1, and a stream's place on one of HTTP/2, has one request under way.
 * 2. An answer that is not the one to this very request fails the load.
 */
import { type ClientHttp2Session, connect } from "node:http2"
import { createConnection } from "node:net"

export type Method = "GET" | "POST"

export interface Load {
  readonly port: number
  readonly http2: boolean
  readonly method: Method
  readonly requests: number
  readonly connections: number
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

/** Draws numbers for as many requests as there are to be. */
const counter = (requests: number): (() => number | undefined) => {
  let next = 0
  return () => (next < requests ? next++ : undefined)
}

const wrong = (status: string, body: string, expected: string): Error =>
  new Error(`The answer was ${status} ${JSON.stringify(body)} and not 200 ${JSON.stringify(expected)}.`)

const overHttp1 = ({ method, port }: Load, draw: () => number | undefined): Promise<void> =>
  new Promise((resolve, reject) => {
    const socket = createConnection({ port, host: "127.0.0.1", noDelay: true })
    let received = ""
    let expected = ""
    const send = (): void => {
      const n = draw()
      if (n === undefined) {
        socket.destroy()
        resolve()
        return
      }
      const { body, expected: next, path } = exchange(method, n)
      expected = next
      received = ""
      const head = `${method} ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\n`
      socket.write(
        method === "GET"
          ? `${head}\r\n`
          : `${head}content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`
      )
    }
    socket.setEncoding("latin1")
    socket.on("connect", send)
    socket.on("error", reject)
    socket.on("close", () => reject(new Error("The server closed a connection that was to be kept.")))
    socket.on("data", (part: string) => {
      received += part
      const end = received.indexOf("\r\n\r\n")
      if (end < 0) return
      const body = bodyOf(received, end)
      if (body === undefined) return
      if (!received.startsWith("HTTP/1.1 200") || body !== expected) {
        reject(wrong(received.slice(9, 12), body, expected))
        socket.destroy()
        return
      }
      send()
    })
  })

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

const overHttp2 = (
  session: ClientHttp2Session,
  method: Method,
  draw: () => number | undefined
): Promise<void> =>
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

/** Sends it all; gives the seconds that it took. */
export const load = async (given: Load): Promise<number> => {
  const { connections, http2, method, port, requests } = given
  const draw = counter(requests)
  const all = Array.from({ length: connections })
  if (!http2) {
    const began = performance.now()
    await Promise.all(all.map(() => overHttp1(given, draw)))
    return (performance.now() - began) / 1000
  }
  // As many streams as HTTP/1.1 has connections, over a few of them.
  const sessions = Array.from({ length: 4 }, () => connect(`http://127.0.0.1:${port}`))
  const broken = new Promise<never>((_, reject) => {
    for (const session of sessions) session.on("error", reject)
  })
  const began = performance.now()
  const loaded = all.map((_, i) =>
    overHttp2(sessions[i % sessions.length] as ClientHttp2Session, method, draw)
  )
  await Promise.race([Promise.all(loaded), broken])
  const took = (performance.now() - began) / 1000
  for (const session of sessions) session.destroy()
  return took
}
