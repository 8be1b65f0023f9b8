/**
 * How clients leave over HTTP/2: for the disconnect matrix.
 */
import { spawn } from "node:child_process"
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2"
import type { Departure, Meeting } from "@curfew/testing"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Link } from "./drivers.ts"

const connected = (port: number): Effect.Effect<ClientHttp2Session, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<ClientHttp2Session>((resume) => {
      const session = connect(`http://127.0.0.1:${port}`)
      session.on("error", () => undefined)
      session.on("connect", () => resume(Effect.succeed(session)))
    }),
    (session) => Effect.sync(() => session.destroy())
  )

interface Sent {
  readonly stream: ClientHttp2Stream
  readonly parts: () => string
  readonly until: (word: string) => Effect.Effect<void>
}

const sent = (session: ClientHttp2Session, headers = {}, body?: Buffer): Sent => {
  const stream = session.request({ ":path": "/", ...headers }, { endStream: body === undefined })
  let text = ""
  let look: (() => void) | undefined
  stream.on("error", () => undefined)
  stream.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1")
    look?.()
  })
  if (body !== undefined) stream.write(body)
  return {
    stream,
    parts: () => ["part", "answer"].filter((word) => text.includes(word)).join(" "),
    until: (word) =>
      Effect.callback((resume) => {
        look = () => {
          if (text.includes(word)) resume(Effect.void)
        }
        look()
      })
  }
}

const cancelled = ({ parts, stream }: Sent, { leaving }: Meeting): Effect.Effect<string> =>
  Effect.andThen(
    leaving,
    Effect.sync(() => {
      const got = parts()
      stream.close(8)
      return got
    })
  )

const leaving = (
  name: string,
  rest: Partial<Departure<Link>>,
  leave: (session: ClientHttp2Session, meeting: Meeting) => Effect.Effect<string>
): Departure<Link> => ({
  name,
  at: "running",
  gets: "",
  ...rest,
  leave: ({ port }, meeting) => Effect.flatMap(connected(port), (session) => leave(session, meeting))
})

export const http2Departures: ReadonlyArray<Departure<Link>> = [
  leaving("while the handler runs, by RST_STREAM", { within: 50 }, (session, meeting) => {
    const call = sent(session)
    return Effect.andThen(meeting.reached, cancelled(call, meeting))
  }),
  leaving("while the handler runs, by the end of the session", { within: 50 }, (session, meeting) => {
    sent(session)
    return Effect.andThen(
      Effect.andThen(meeting.reached, meeting.leaving),
      Effect.sync(() => {
        session.destroy()
        return ""
      })
    )
  }),
  leaving("while the handler runs, with a large body that nobody reads", {}, (session, meeting) => {
    const call = sent(session, { ":method": "POST" }, Buffer.alloc(8 * 1024 * 1024))
    return Effect.andThen(meeting.reached, cancelled(call, meeting))
  }),
  leaving("in the second stream of its session", { earlier: 1, gets: "answer" }, (session, meeting) => {
    const first = sent(session)
    return Effect.gen(function* () {
      yield* first.until("answer")
      const second = sent(session)
      yield* meeting.reached
      yield* cancelled(second, meeting)
      return first.parts()
    })
  }),
  leaving("while the answer streams", { at: "streaming", within: 50, gets: "part" }, (session, meeting) => {
    const call = sent(session)
    return Effect.andThen(
      Effect.andThen(meeting.reached, call.until("part")),
      Effect.suspend(() => cancelled(call, meeting))
    )
  }),
  leaving("after the answer", { at: "answered", gets: "answer" }, (session, meeting) => {
    const call = sent(session)
    return Effect.andThen(
      call.until("answer"),
      Effect.suspend(() => cancelled(call, meeting))
    )
  }),
  {
    name: "while the handler runs, as a process that is killed",
    at: "running",
    gets: "",
    leave: ({ port }, meeting) =>
      Effect.gen(function* () {
        const script = `require("node:http2").connect("http://127.0.0.1:${port}").request({":path":"/"})`
        const child = yield* Effect.acquireRelease(
          Effect.sync(() => spawn(process.execPath, ["-e", script], { stdio: "ignore" })),
          (started) => Effect.sync(() => started.kill("SIGKILL"))
        )
        yield* meeting.reached
        yield* meeting.leaving
        child.kill("SIGKILL")
        return ""
      })
  }
]
