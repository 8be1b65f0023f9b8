/**
 * The clients of the HTTP matrix.
 *
 * Invariants
 * 1. Each has a socket, or a process, of its own; its scope destroys it.
 * 2. What a client got is told by what came over its own end, up to the moment at which it left or the answer ended.
 */
import { spawn } from "node:child_process"
import { request } from "node:http"
import { connect, type Socket } from "node:net"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Departure, Meeting } from "../Disconnects.ts"
import type { HttpLink } from "../httpDisconnects.ts"

interface Client {
  readonly socket: Socket
  /** Everything that came. */
  readonly received: () => string
  /** Resumes when so many of the words have come. */
  readonly until: (word: string, times?: number) => Effect.Effect<void>
}

const connected = (port: number): Effect.Effect<Client, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Client>((resume) => {
      const socket = connect({ host: "127.0.0.1", port, noDelay: true, allowHalfOpen: true })
      let text = ""
      let look: (() => void) | undefined
      socket.on("data", (chunk: Buffer) => {
        text += chunk.toString("latin1")
        look?.()
      })
      // The end of a connection is what these clients are about.
      socket.on("error", () => undefined)
      socket.on("end", () => socket.end())
      socket.on("connect", () =>
        resume(
          Effect.succeed({
            socket,
            received: () => text,
            until: (word, times = 1) =>
              Effect.callback<void>((found) => {
                look = () => {
                  if (text.split(word).length > times) found(Effect.void)
                }
                look()
              })
          })
        )
      )
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

const get = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"

/** The parts of an answer that came. */
const partsOf = (text: string): string => ["part", "answer"].filter((word) => text.includes(word)).join(" ")

const reset = ({ received, socket }: Client, { leaving }: Meeting): Effect.Effect<string> =>
  Effect.andThen(
    leaving,
    Effect.sync(() => {
      socket.resetAndDestroy()
      return partsOf(received())
    })
  )

const written = ({ socket }: Client, text: string): Effect.Effect<void> =>
  Effect.sync(() => {
    socket.write(text)
  })

const beforeStart: Departure<HttpLink> = {
  name: "before its request is complete",
  at: "beforeStart",
  gets: "",
  leave: ({ port }, meeting) =>
    Effect.gen(function* () {
      const client = yield* connected(port)
      yield* written(client, "GET / HTTP/1.1\r\nhost: loc")
      // Time moves when the sockets are silent: the server has what was sent.
      yield* Effect.sleep("1 millis")
      return yield* reset(client, meeting)
    })
}

const whileRunning: Departure<HttpLink> = {
  name: "while the handler runs, by a reset",
  at: "running",
  within: 50,
  gets: "",
  leave: ({ port }, meeting) =>
    Effect.gen(function* () {
      const client = yield* connected(port)
      yield* written(client, get)
      yield* meeting.reached
      return yield* reset(client, meeting)
    })
}

const aborted: Departure<HttpLink> = {
  name: "while the handler runs, by an AbortSignal",
  at: "running",
  within: 50,
  gets: "",
  leave: ({ port }, meeting) =>
    Effect.gen(function* () {
      const aborter = yield* Effect.acquireRelease(
        Effect.sync(() => new AbortController()),
        (controller) => Effect.sync(() => controller.abort())
      )
      const sent = request({ agent: false, host: "127.0.0.1", port, signal: aborter.signal })
      const closed = Effect.callback<void>((resume) => {
        sent.on("close", () => resume(Effect.void))
      })
      let got = ""
      sent.on("error", () => undefined)
      sent.on("response", () => {
        got = "an answer"
      })
      sent.end()
      yield* meeting.reached
      yield* meeting.leaving
      aborter.abort()
      yield* closed
      return got
    })
}

const halfClosed: Departure<HttpLink> = {
  name: "while the handler runs, by a FIN",
  at: "running",
  within: 50,
  gets: "",
  leave: ({ port }, meeting) =>
    Effect.gen(function* () {
      const client = yield* connected(port)
      yield* written(client, get)
      yield* meeting.reached
      yield* meeting.leaving
      client.socket.end()
      return partsOf(client.received())
    })
}

const unreadBody: Departure<HttpLink> = {
  name: "while the handler runs, with a large body that nobody reads",
  at: "running",
  gets: "",
  leave: ({ port }, meeting) =>
    Effect.gen(function* () {
      const client = yield* connected(port)
      const length = 64 * 1024 * 1024
      yield* written(
        client,
        `POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${length}\r\n\r\n${"x".repeat(8 * 1024 * 1024)}`
      )
      yield* meeting.reached
      yield* Effect.sleep("1 millis")
      return yield* reset(client, meeting)
    })
}

const secondRequest: Departure<HttpLink> = {
  name: "in the second request of its connection",
  at: "running",
  earlier: 1,
  within: 50,
  gets: "answer",
  leave: ({ port }, meeting) =>
    Effect.gen(function* () {
      const client = yield* connected(port)
      yield* written(client, get)
      yield* client.until("answer")
      yield* written(client, get)
      yield* meeting.reached
      return yield* reset(client, meeting)
    })
}

const whileStreaming: Departure<HttpLink> = {
  name: "while the answer streams",
  at: "streaming",
  within: 50,
  gets: "part",
  leave: ({ port }, meeting) =>
    Effect.gen(function* () {
      const client = yield* connected(port)
      yield* written(client, get)
      yield* meeting.reached
      yield* client.until("part")
      return yield* reset(client, meeting)
    })
}

const afterAnswer: Departure<HttpLink> = {
  name: "after the answer",
  at: "answered",
  gets: "answer",
  leave: ({ port }, meeting) =>
    Effect.gen(function* () {
      const client = yield* connected(port)
      yield* written(client, get)
      yield* client.until("answer")
      return yield* reset(client, meeting)
    })
}

const script = (port: number): string =>
  `require("node:http").get({ host: "127.0.0.1", port: ${port} }).on("error", () => {})`

const killed: Departure<HttpLink> = {
  name: "while the handler runs, as a process that is killed",
  at: "running",
  gets: "",
  leave: ({ port }, meeting) =>
    Effect.gen(function* () {
      const child = yield* Effect.acquireRelease(
        Effect.sync(() => spawn(process.execPath, ["-e", script(port)], { stdio: "ignore" })),
        (process) => Effect.sync(() => process.kill("SIGKILL"))
      )
      yield* meeting.reached
      yield* meeting.leaving
      // Its exit is not waited for: the server hears of it before, and virtual time would pass meanwhile.
      child.kill("SIGKILL")
      return ""
    })
}

export const departures: ReadonlyArray<Departure<HttpLink>> = [
  beforeStart,
  whileRunning,
  aborted,
  halfClosed,
  unreadBody,
  secondRequest,
  whileStreaming,
  afterAnswer,
  killed
]
