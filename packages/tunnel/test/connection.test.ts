/** A tunnel's own HTTP/2 connection, against real servers: what comes, and every way in which it ends. */
import { createServer, type Http2Server, type Http2Session, type ServerHttp2Stream } from "node:http2"
import { type AddressInfo, createServer as createTcpServer } from "node:net"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { openForward } from "../src/index.ts"
import type { Framing } from "../src/internal/batch.ts"
import { decodeClientFrame } from "../src/internal/decode.ts"
import { encodeFrame } from "../src/internal/encode.ts"
import type { ClientFrame, Malformed } from "../src/internal/frame.ts"
import { MessageReader, type Unreadable } from "../src/internal/messages.ts"
import { targetOf } from "../src/internal/target.ts"
import { audited } from "./support/audit.ts"
import { encoded } from "./support/batches.ts"
import { EchoClient, unary } from "./support/echo.ts"

const { status: Code } = grpc

describe("the body of a response", () => {
  const lengths = fc.oneof(fc.nat(300), fc.integer({ min: 8000, max: 30_000 }))
  const frames: fc.Arbitrary<ReadonlyArray<ClientFrame>> = fc.array(
    fc.oneof(
      lengths.map((length): ClientFrame => ({ _tag: "MoreData", id: 1, data: Buffer.alloc(length, length) })),
      lengths.map(
        (length): ClientFrame => ({ _tag: "Message", id: 300, size: 99_999, data: Buffer.alloc(length) })
      ),
      lengths.map((length): ClientFrame => ({ _tag: "Cancel", id: 7, reason: Buffer.alloc(length) }))
    ),
    { maxLength: 20 }
  )
  const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 400 }), fc.integer({ min: 400, max: 17_000 })), {
    minLength: 1,
    maxLength: 20
  })

  const read = (body: Buffer, sizes: ReadonlyArray<number>, batched: boolean, limit = 1_000_000) => {
    const found: Array<ClientFrame | Malformed> = []
    const reader = new MessageReader(
      batched,
      limit,
      (bytes, start, end) => found.push(decodeClientFrame(Buffer.from(bytes.subarray(start, end)))),
      (id, size, data) => {
        const bytes = Buffer.from(data)
        found.push(
          size < 0 ? { _tag: "MoreData", id, data: bytes } : { _tag: "Message", id, size, data: bytes }
        )
      }
    )
    let wrong: Unreadable | undefined
    for (let at = 0, index = 0; at < body.length && wrong === undefined; index++) {
      const size = sizes[index % sizes.length] as number
      wrong = reader.feed(body.subarray(at, at + size))
      at += size
    }
    return { found, wrong, whole: reader.whole }
  }

  /** What the pieces of a message come to, however it was cut into them. */
  const joined = (all: ReadonlyArray<ClientFrame | Malformed>): ReadonlyArray<ClientFrame | Malformed> => {
    const found: Array<ClientFrame | Malformed> = []
    for (const frame of all) {
      const last = found.at(-1)
      if (frame._tag === "MoreData" && last !== undefined && "data" in last && last.id === frame.id)
        found.splice(-1, 1, { ...last, data: Buffer.concat([last.data, frame.data]) })
      else found.push(frame)
    }
    return found
  }

  it.each([
    ["messages", false],
    ["batches as messages", true]
  ] as const)("comes apart into its frames, however %s are cut on the way", (framing: Framing, batched) => {
    fc.assert(
      fc.property(frames, cuts, fc.integer({ min: 32, max: 3000 }), (sent, sizes, capacity) => {
        const body = Buffer.concat(encoded(sent, framing, { capacity }))
        const { found, whole, wrong } = read(body, sizes, batched)
        expect([wrong, whole]).toEqual([undefined, true])
        expect(joined(found)).toEqual(joined(sent))
      })
    )
  })

  it("gives what there is of a long piece, and waits for the rest of other frames", () => {
    const data = Buffer.alloc(20_000, "abc")
    const body = (frame: ClientFrame): Buffer => Buffer.concat(encoded([frame], "messages"))
    const tags = (frame: ClientFrame): ReadonlyArray<string> =>
      read(body(frame), [10_000], false).found.map((it) =>
        "data" in it ? `${it._tag} ${it.data.length}` : it._tag
      )
    const [head = "", ...rest] = tags({ _tag: "Message", id: 1, size: 20_000, data })
    expect([head.split(" ")[0], ...rest.map((it) => it.split(" ")[0])]).toEqual([
      "Message",
      "MoreData",
      "MoreData"
    ])
    expect(tags({ _tag: "Cancel", id: 1, reason: data })).toEqual(["Cancel"])
  })

  it("gives each frame of a batch as soon as it is there", () => {
    const body = Buffer.concat(
      encoded(
        [
          { _tag: "HalfClose", id: 1 },
          { _tag: "Cancel", id: 2 }
        ],
        "batches as messages"
      )
    )
    expect(read(body.subarray(0, body.length - 1), [body.length], true).found.length).toBe(1)
  })

  it.each([
    ["a compressed message", "0100000000", true, "compressed"],
    ["a message over the limit", "0000100001", false, "too large"],
    ["a frame longer than its batch", "000000000600000003aabb", true, "cut off"],
    ["a batch that ends inside a length", "00000000030000000500", true, "cut off"]
  ] as const)("with %s is told apart", (_what, hex, batched, wrong) => {
    for (const size of [1, 100]) {
      expect(read(Buffer.from(hex, "hex"), [size], batched, 1_048_576).wrong).toBe(wrong)
    }
  })

  it("of any bytes is read or told apart, and never throws", () => {
    const bytes = fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 40 }).map((it) => Buffer.from(it)),
        // What looks like the head of a long piece, and of what.
        fc
          .tuple(fc.integer({ min: 8000, max: 20_000 }), fc.uint8Array({ maxLength: 12 }))
          .map(([length, head]) => {
            const frame = Buffer.alloc(5 + length)
            frame.writeUInt32BE(length, 1)
            frame.set([0x08, 0x01, 0x1a, ...head], 5)
            return frame
          })
      ),
      { maxLength: 6 }
    )
    fc.assert(
      fc.property(bytes, cuts, fc.boolean(), (parts, sizes, batched) => {
        const { wrong } = read(Buffer.concat(parts), sizes, batched, 30_000)
        expect([undefined, "compressed", "too large", "cut off"]).toContain(wrong)
      })
    )
  })

  it("is not whole inside a message", () => {
    expect(read(Buffer.from("0000000003aabb", "hex"), [100], false).whole).toBe(false)
  })

  it("without a frame in a batch goes on behind it", () => {
    const body = Buffer.concat([
      Buffer.from("0000000000", "hex"),
      ...encoded([{ _tag: "Cancel", id: 2 }], "batches as messages")
    ])
    expect(read(body, [3], true).found).toEqual([{ _tag: "Cancel", id: 2 }])
  })
})

describe("an address", () => {
  const tcp = (host: string, port: number, authority: string) => ({ to: { host, port }, authority })
  it.each([
    ["localhost:50051", tcp("localhost", 50_051, "localhost:50051")],
    ["example.org", tcp("example.org", 443, "example.org")],
    ["dns:example.org:80", tcp("example.org", 80, "example.org:80")],
    ["dns:///example.org:80", tcp("example.org", 80, "example.org:80")],
    ["ipv4:10.0.0.1:80", tcp("10.0.0.1", 80, "10.0.0.1:80")],
    ["[::1]:80", tcp("::1", 80, "[::1]:80")],
    ["ipv6:[::1]:80", tcp("::1", 80, "[::1]:80")],
    ["unix:relative.sock", { to: { path: "relative.sock" }, authority: "localhost" }],
    ["unix:///tmp/x.sock", { to: { path: "/tmp/x.sock" }, authority: "localhost" }],
    ["xds:///service", undefined],
    ["ipv4:10.0.0.1:80,10.0.0.2:80", undefined],
    ["host:70000", undefined],
    ["", undefined]
  ])("%s is dialled as it says, or not by a guess", (address, target) => {
    expect(targetOf(address)).toEqual(target)
  })

  it.live("that is none is refused before anything is dialled", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(Effect.scoped(openForward({ address: "xds:///service", tls: false })))
      const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      expect(defect).toMatchObject({ _tag: "IllegalArgument" })
    })
  )
})

/** A plain HTTP/2 server, and what it does with each request. */
const plain = (
  onStream: (stream: ServerHttp2Stream, session: Http2Session) => void
): Effect.Effect<{ readonly address: string; readonly sessions: Set<Http2Session> }, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly server: Http2Server; readonly sessions: Set<Http2Session> }>((resume) => {
        const sessions = new Set<Http2Session>()
        const server = createServer()
        server.on("session", (session) => {
          sessions.add(session)
          session.on("error", () => undefined)
          session.on("close", () => sessions.delete(session))
        })
        server.on("stream", (stream) => {
          stream.on("error", () => undefined)
          onStream(stream, stream.session as Http2Session)
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed({ server, sessions })))
      }),
      ({ server, sessions }) =>
        Effect.sync(() => {
          for (const session of sessions) session.destroy()
          server.close()
        })
    ),
    ({ server, sessions }) => ({ address: `127.0.0.1:${(server.address() as AddressInfo).port}`, sessions })
  )

const headers = { ":status": 200, "content-type": "application/grpc", "grpctunnel-negotiate": "on" }

/** Answers as a tunnel server does, up to its settings. */
const greet = (stream: ServerHttp2Stream): void => {
  stream.respond(headers, { waitForTrailers: true })
  const settings = encodeFrame({ _tag: "Settings", id: -1, revisions: [0, 1], window: 65_536 })
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(settings.length, 1)
  stream.write(Buffer.concat([prefix, settings]))
}

describe("a tunnel over its own connection", () => {
  it.live.each([
    ["nothing listens", (): void => undefined, Code.UNAVAILABLE, "ECONNREFUSED"],
    ["HTTP says 404", (it) => it.respond({ ":status": 404 }, { endStream: true }), Code.UNIMPLEMENTED, "404"],
    ["HTTP says 503", (it) => it.respond({ ":status": 503 }, { endStream: true }), Code.UNAVAILABLE, "503"],
    ["HTTP says 302", (it) => it.respond({ ":status": 302 }, { endStream: true }), Code.UNKNOWN, "302"],
    [
      "a status is all that comes",
      (it) => {
        const status = { "grpc-status": "7", "grpc-message": "not%20you" }
        it.respond({ ...headers, ...status }, { endStream: true })
      },
      Code.PERMISSION_DENIED,
      "not you"
    ],
    ["the call is reset", (it) => it.close(7), Code.UNAVAILABLE, "refused the call"],
    ["the connection is dropped", (it) => it.session?.destroy(), Code.UNAVAILABLE, "connection"],
    [
      "a message is compressed",
      (it) => {
        it.respond(headers)
        it.write(Buffer.from("0100000000", "hex"))
      },
      Code.INTERNAL,
      "compressed"
    ]
  ] as ReadonlyArray<readonly [string, (stream: ServerHttp2Stream) => void, number, string]>)(
    "is not opened where %s, and leaves nothing",
    ([what, answer, code, text]) =>
      Effect.gen(function* () {
        const [error, findings] = yield* audited(
          Effect.scoped(
            Effect.gen(function* () {
              const { address } = yield* plain(answer)
              const to = {
                address: what === "nothing listens" ? "127.0.0.1:1" : address,
                tls: false
              } as const
              return yield* Effect.flip(openForward(to))
            })
          )
        )
        expect(error).toMatchObject({ _tag: "TunnelOpenError", code })
        expect(error.details).toContain(text)
        expect(findings).toMatchObject({ liveFibers: 0, errorLogs: [] })
      })
  )

  it.live("is not opened where nobody speaks HTTP/2", () =>
    Effect.gen(function* () {
      const { port } = yield* Effect.acquireRelease(
        Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
          const server = createTcpServer((socket) => void socket.end("SSH-2.0\r\n"))
          server.listen(0, "127.0.0.1", () =>
            resume(
              Effect.succeed({ port: (server.address() as AddressInfo).port, close: () => server.close() })
            )
          )
        }),
        ({ close }) => Effect.sync(close)
      )
      const error = yield* Effect.flip(openForward({ address: `127.0.0.1:${port}`, tls: false }))
      expect(error).toMatchObject({ code: Code.UNAVAILABLE })
    }).pipe(Effect.scoped)
  )

  const ends: ReadonlyArray<
    readonly [string, (stream: ServerHttp2Stream, session: Http2Session) => void, string, number | undefined]
  > = [
    [
      "the server finishes",
      (stream) => {
        stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }))
        stream.end()
      },
      "ClosedByPeer",
      undefined
    ],
    [
      "the server gives a status",
      (stream) => {
        stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "8", "grpc-message": "full" }))
        stream.end()
      },
      "Lost",
      Code.RESOURCE_EXHAUSTED
    ],
    ["the server resets the call", (stream) => stream.close(8), "Lost", Code.CANCELLED],
    ["the connection is dropped", (_, session) => session.destroy(), "Lost", Code.UNAVAILABLE],
    ["the server has had enough", (_, session) => session.goaway(11, 0), "Lost", Code.RESOURCE_EXHAUSTED]
  ]

  it.live.each(ends)("ends when %s, once, and its calls get UNAVAILABLE", ([, end, tag, code]) =>
    Effect.gen(function* () {
      let last: readonly [ServerHttp2Stream, Http2Session] | undefined
      const { address } = yield* plain((stream, session) => {
        last = [stream, session]
        greet(stream)
      })
      const tunnel = yield* openForward({ address, tls: false })
      const running = unary(tunnel.client(EchoClient), Buffer.from("x"))
      yield* Effect.yieldNow
      if (last !== undefined) end(...last)
      const closed = yield* tunnel.closed
      expect(closed._tag).toBe(tag)
      if (code !== undefined) expect(closed).toMatchObject({ error: { code } })
      expect((yield* Effect.promise(() => running)).code).toBe(Code.UNAVAILABLE)
    }).pipe(Effect.scoped)
  )

  it.effect("goes on after a GOAWAY that lets it, also when the next pings are due", () =>
    Effect.gen(function* () {
      const { address } = yield* plain((stream, session) => {
        session.goaway(0)
        greet(stream)
        // Nobody has to wait for it to be cut off, which by this clock would never be.
        stream.resume().once("end", () => stream.close())
      })
      const tunnel = yield* openForward({ address, tls: false })
      for (let count = 0; count < 5; count++) {
        yield* TestClock.adjust("30 seconds")
        yield* Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))
      }
      yield* tunnel.close()
      expect(yield* tunnel.closed).toMatchObject({ _tag: "ClosedHere" })
    }).pipe(Effect.scoped)
  )

  it.live("leaves no connection behind", () =>
    Effect.gen(function* () {
      const { address, sessions } = yield* plain((stream) => greet(stream))
      const gone = Deferred.makeUnsafe<void>()
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* openForward({ address, tls: false })
          for (const session of sessions) session.once("close", () => Deferred.doneUnsafe(gone, Effect.void))
          expect(sessions.size).toBe(1)
        })
      )
      yield* Deferred.await(gone)
      expect(sessions.size).toBe(0)
    }).pipe(Effect.scoped)
  )

  it.live("takes a hundred thousand frames of a peer that sends each as a message", () =>
    Effect.gen(function* () {
      const sent = 100_000
      let seen = 0
      const done = Deferred.makeUnsafe<void>()
      const { address } = yield* plain((stream) => {
        greet(stream)
        const drain: ClientFrame = { _tag: "WindowUpdate", id: -1, increment: 1 }
        const body = Buffer.concat(encoded(Array<ClientFrame>(sent).fill(drain), "messages"))
        stream.write(body, () => {
          seen = sent
          Deferred.doneUnsafe(done, Effect.void)
        })
      })
      const tunnel = yield* openForward({ address, tls: false })
      yield* Deferred.await(done)
      expect(seen).toBe(sent)
      expect(yield* tunnel.draining).toBe(false)
    }).pipe(Effect.scoped)
  )
})
