/**
 * What the two processes and Node's HTTP/2 cost by themselves: bytes there and back on a stream that stays open, without
 * calls, metadata or deadlines. Nothing that goes over HTTP/2 in Node can be faster; it is measured to say so.
 */
import { type ClientHttp2Session, connect, createServer, type ServerHttp2Stream } from "node:http2"
import type { AddressInfo } from "node:net"
import type { Driver } from "./driver.ts"
import { checkMessage, checkPayload, messagesOf, payload } from "./wire.ts"

/** About what the frames of one call take, in each direction. */
const bytes = 280

/** Calls back with each run of so many bytes. */
const inRuns = (size: number, onRun: (run: Buffer) => void): ((chunk: Buffer) => void) => {
  let rest: Buffer = Buffer.alloc(0)
  return (chunk) => {
    let left = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    while (left.length >= size) {
      onRun(left.subarray(0, size))
      left = left.subarray(size)
    }
    rest = left
  }
}

/** As many calls as the tunnel's intake handles in a turn: three frames each. */
const batch = 16

/** Writes what comes in a turn of the event loop in one go, and no more than so many runs at a time. */
const inBatches = (write: (bytes: Buffer) => void): ((run: Buffer) => void) => {
  const waiting: Array<Buffer> = []
  const turn = (): void => {
    write(Buffer.concat(waiting.splice(0, batch)))
    if (waiting.length > 0) setImmediate(turn)
  }
  return (run) => {
    if (waiting.push(run) === 1) setImmediate(turn)
  }
}

const stream = (stream: ServerHttp2Stream, size: number, everyMillis: number): void => {
  const message = messagesOf(size)
  let index = 0
  const timer = setInterval(() => stream.write(message(index++)), everyMillis)
  stream.on("close", () => clearInterval(timer))
}

/** Listens, and gives the port. */
export const bareServer = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer()
    server.on("stream", (opened, headers) => {
      opened.on("error", () => undefined)
      opened.respond()
      const [, size, everyMillis] = String(headers[":path"]).split("/")
      const write = (bytes: Buffer) => opened.write(bytes)
      if (size === "batches") return void opened.on("data", inRuns(bytes, inBatches(write)))
      if (size !== "") return stream(opened, Number(size), Number(everyMillis))
      opened.on("data", inRuns(bytes, write))
    })
    server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port))
  })

const streamed =
  (session: ClientHttp2Session): Driver["download"] =>
  ({ everyMillis, size }, _number, onMessage = () => undefined) => {
    if (everyMillis === 0) throw new Error("A bare stream has a pace.")
    const opened = session.request({ ":path": `/${size}/${everyMillis}` })
    let received = 0
    const done = new Promise<void>((resolve, reject) => {
      opened.on(
        "data",
        inRuns(size, (run) => {
          try {
            checkMessage(run, size, received++)
            onMessage()
          } catch (problem) {
            reject(problem)
          }
        })
      )
      opened.on("close", resolve)
      opened.on("error", reject)
    })
    return {
      done,
      cancel: () => {
        opened.close()
        return done
      }
    }
  }

/**
 * "Calls" of such a server: what a call sends there and back, and nothing of what it is. In batches, which is how a tunnel
 * sends what many callers have, it is all that is left of one without frames.
 */
export const bareDriver = (address: string, how: "one by one" | "batches"): Driver => {
  const session = connect(`http://${address}`)
  const path = how === "batches" ? "/batches" : "/"
  const opened = session.request({ ":method": "POST", ":path": path }, { endStream: false })
  const write = (bytes: Buffer) => opened.write(bytes)
  const send = how === "batches" ? inBatches(write) : write
  const waiting: Array<readonly [number: number, done: (error?: unknown) => void]> = []
  opened.on(
    "data",
    inRuns(bytes, (run) => {
      const [number, done] = waiting.shift() as (typeof waiting)[number]
      try {
        checkPayload(run, bytes, number)
      } catch (problem) {
        return done(problem)
      }
      done()
    })
  )
  const issue: Driver["issue"] = (number, done) => {
    waiting.push([number, done])
    send(payload(bytes, number))
  }
  return {
    issue,
    loop: (_wrapped, until) =>
      new Promise((resolve, reject) => {
        const next = (error?: unknown): void => {
          const number = error === undefined ? until() : undefined
          if (error !== undefined) reject(error)
          else if (number === undefined) resolve()
          else issue(number, next)
        }
        next()
      }),
    download: streamed(session),
    upload: () => Promise.reject(new Error("Nothing is uploaded over a bare stream."))
  }
}
