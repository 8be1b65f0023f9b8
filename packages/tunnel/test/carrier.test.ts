import { Duplex } from "node:stream"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { Services, TunnelService } from "../src/index.ts"
import { batchKey, batchLimit, unpack } from "../src/internal/batch.ts"
import { decodeClientFrame, decodeServerFrame } from "../src/internal/decode.ts"
import { encodeFrame } from "../src/internal/encode.ts"
import { type ClientFrame, noBytes } from "../src/internal/frame.ts"
import { accept, identity, negotiateKey, paths } from "../src/internal/grpcCarrier.ts"
import { encoded } from "./support/batches.ts"
import { definition, implementation, metadata } from "./support/echo.ts"
import { listen } from "./support/network.ts"

const pieces: fc.Arbitrary<ReadonlyArray<ClientFrame>> = fc.array(
  fc
    .nat(10_000)
    .map((length): ClientFrame => ({ _tag: "MoreData", id: 1, data: Buffer.alloc(length, length) })),
  { maxLength: 30 }
)
const settings = fc.record({ capacity: fc.integer({ min: 16, max: 20_000 }), lent: fc.boolean() })

const unpacked = (batch: Buffer): ReadonlyArray<Buffer> | undefined => {
  const found: Array<Buffer> = []
  return unpack(batch, (bytes, start, end) => found.push(bytes.subarray(start, end))) ? found : undefined
}

/** The messages in the body of an HTTP/2 request. */
const messagesOf = (body: Buffer): ReadonlyArray<Buffer> => {
  const found: Array<Buffer> = []
  for (let at = 0; at < body.length; ) {
    expect(body[at]).toBe(0)
    const end = at + 5 + body.readUInt32BE(at + 1)
    found.push(body.subarray(at + 5, end))
    at = end
  }
  return found
}

const batchesOf = (batches: ReadonlyArray<Buffer>) =>
  batches.flatMap((batch) => unpacked(batch) ?? []).map(decodeClientFrame)

describe("frames come apart as they went in, in order,", () => {
  it("in batches", () => {
    fc.assert(
      fc.property(pieces, settings, (sent, how) => {
        expect(batchesOf(encoded(sent, "batches", how))).toEqual(sent)
      })
    )
  })

  it("in the messages of an HTTP/2 body", () => {
    fc.assert(
      fc.property(pieces, settings, (sent, how) => {
        const body = Buffer.concat(encoded(sent, "messages", how))
        expect(messagesOf(body).map(decodeClientFrame)).toEqual(sent)
      })
    )
  })

  it("in the batches of an HTTP/2 body", () => {
    fc.assert(
      fc.property(pieces, settings, (sent, how) => {
        const body = Buffer.concat(encoded(sent, "batches as messages", how))
        expect(batchesOf(messagesOf(body))).toEqual(sent)
      })
    )
  })
})

describe("a batch of frames", () => {
  const sent = [10, 100_000, 100_000, 100_000, 400_000, 10].map(
    (length): ClientFrame => ({ _tag: "MoreData", id: 1, data: Buffer.alloc(length) })
  )

  it("stays below the limit, unless it is one frame", () => {
    const capacity = 1_000_000
    const count = (batches: ReadonlyArray<Buffer>) => batches.map((batch) => unpacked(batch)?.length)
    expect(count(encoded(sent, "batches", { capacity }))).toEqual([3, 1, 1, 1])
    for (const lent of [false, true]) {
      const body = Buffer.concat(encoded(sent, "batches as messages", { capacity, lent }))
      expect(count(messagesOf(body))).toEqual([3, 1, 1, 1])
    }
  })

  it("stays below it also where the slab ends first", () => {
    for (const batch of encoded(sent, "batches")) {
      expect(batch.length <= batchLimit || unpacked(batch)?.length === 1).toBe(true)
    }
  })

  it("that is cut off is told apart from a shorter one", () => {
    const [batch = noBytes] = encoded(
      [
        { _tag: "HalfClose", id: 1 },
        { _tag: "Cancel", id: 300 }
      ],
      "batches"
    )
    const whole = [0, 8, batch.length]
    for (let length = 0; length <= batch.length; length++) {
      expect(unpacked(batch.subarray(0, length)) !== undefined, `${length} bytes`).toBe(
        whole.includes(length)
      )
    }
  })
})

describe("a payload that is lent", () => {
  const data = Buffer.alloc(10_000)
  const message: ClientFrame = { _tag: "Message", id: 1, size: 20_000, data }

  it("is not copied into a body, and is where frames or batches stand by themselves", () => {
    for (const framing of ["messages", "batches as messages"] as const)
      expect(encoded([message], framing, { lent: true })).toContain(data)
    for (const framing of ["frames", "batches"] as const)
      expect(encoded([message], framing, { lent: true }).some((it) => it.buffer === data.buffer)).toBe(false)
  })
})

/** Opens the outer call by hand, with the headers given, and talks to a real server. */
const byHand = (headers: grpc.Metadata, path: string = paths.forward) =>
  Effect.gen(function* () {
    const services = Services.empty.pipe(Services.add(definition, implementation()))
    const service = yield* TunnelService.make({ services })
    const { address } = yield* listen(service.addTo)
    const client = yield* Effect.acquireRelease(
      Effect.sync(() => new grpc.Client(address, grpc.credentials.createInsecure())),
      (it) => Effect.sync(() => it.close())
    )
    const call = client.makeBidiStreamRequest(path, identity, identity, headers)
    call.on("error", () => undefined)
    const received: Array<Buffer> = []
    const status = new Promise<grpc.StatusObject>((resolve) => call.on("status", resolve))
    call.on("data", (message: Buffer) => received.push(message))
    const answered = yield* Effect.promise(
      () => new Promise<grpc.Metadata>((resolve) => call.on("metadata", resolve))
    )
    return { call, received, status: Effect.promise(() => status), headers: answered }
  })

const unaryFrames: ReadonlyArray<ClientFrame> = [
  {
    _tag: "NewStream",
    id: 1,
    method: "/curfew.test.Echo/Unary",
    headers: noBytes,
    window: 65_536,
    revision: 1
  },
  { _tag: "Message", id: 1, size: 2, data: Buffer.from("hi") },
  { _tag: "HalfClose", id: 1 }
]

describe("a real server", () => {
  it.live("speaks one frame per message to a peer that knows nothing else, its settings first", () =>
    Effect.gen(function* () {
      const peer = yield* byHand(metadata({ [negotiateKey]: "on" }))
      expect(peer.headers.get(negotiateKey)).toEqual(["on"])
      for (const frame of unaryFrames) peer.call.write(encodeFrame(frame))
      yield* Effect.repeat(Effect.yieldNow, { until: () => peer.received.length >= 4 })
      expect(peer.received.map((message) => decodeServerFrame(message)._tag)).toEqual([
        "Settings",
        "ResponseHeaders",
        "Message",
        "CloseStream"
      ])
      peer.call.end()
      expect((yield* peer.status).code).toBe(grpc.status.OK)
    }).pipe(Effect.scoped)
  )

  it.live("speaks in batches to a peer that announces them", () =>
    Effect.gen(function* () {
      const peer = yield* byHand(metadata({ [negotiateKey]: "on", [batchKey]: "on" }))
      expect(peer.headers.get(batchKey)).toEqual(["on"])
      for (const batch of encoded(unaryFrames, "batches")) peer.call.write(batch)
      const all = () => peer.received.flatMap((batch) => unpacked(batch) ?? [])
      yield* Effect.repeat(Effect.yieldNow, { until: () => all().length >= 4 })
      expect(all().map((frame) => decodeServerFrame(frame)._tag)).toEqual([
        "Settings",
        "ResponseHeaders",
        "Message",
        "CloseStream"
      ])
      peer.call.end()
      expect((yield* peer.status).code).toBe(grpc.status.OK)
    }).pipe(Effect.scoped)
  )

  it.live("answers the headers at once and sends no settings to a peer that did not ask", () =>
    Effect.gen(function* () {
      const peer = yield* byHand(new grpc.Metadata())
      expect(peer.headers.get(negotiateKey)).toEqual(["on"])
      peer.call.end()
      expect((yield* peer.status).code).toBe(grpc.status.OK)
      expect(peer.received).toEqual([])
    }).pipe(Effect.scoped)
  )

  it.live("tells the peer of a reverse tunnel without a common revision why it is not opened", () =>
    Effect.gen(function* () {
      const peer = yield* byHand(metadata({ [negotiateKey]: "on" }), paths.reverse)
      peer.call.write(encodeFrame({ _tag: "Settings", id: -1, revisions: [7], window: 1 }))
      expect((yield* peer.status).code).toBe(grpc.status.FAILED_PRECONDITION)
    }).pipe(Effect.scoped)
  )

  it.live("ends the outer call of a peer that breaks the ids with an error", () =>
    Effect.gen(function* () {
      const peer = yield* byHand(metadata({ [negotiateKey]: "on" }))
      peer.call.write(encodeFrame({ _tag: "Cancel", id: 5 }))
      expect((yield* peer.status).code).toBe(grpc.status.INTERNAL)
    }).pipe(Effect.scoped)
  )
})

describe("an outer call that was cancelled while it was let in", () => {
  it.live("is over for the tunnel at once, and nobody waits for its end", () =>
    Effect.gen(function* () {
      // grpc-js said so before anybody listened.
      const call = Object.assign(new Duplex({ objectMode: true, read: () => undefined }), {
        cancelled: true,
        metadata: new grpc.Metadata(),
        sendMetadata: () => undefined
      }) as unknown as grpc.ServerDuplexStream<Buffer, Buffer>
      const { metadata: headers } = call
      const carrier = accept(call, undefined, {
        kind: "reverse",
        peer: "gone",
        metadata: headers,
        secure: false,
        certificate: undefined,
        identity: undefined
      })
      const ends: Array<number> = []
      carrier.listen(
        () => undefined,
        ({ code }) => ends.push(code)
      )
      expect(ends).toEqual([grpc.status.CANCELLED])
      let taken = 0
      carrier.write([Buffer.from("x")], () => taken++)
      expect(taken).toBe(1)
      yield* carrier.end()
    })
  )
})
