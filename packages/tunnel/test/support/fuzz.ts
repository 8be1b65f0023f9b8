/**
 * Hostile peers, one after the other, with a healthy tunnel beside them in the same process.
 *
 * A round is one tunnel whose peer is hostile: it sends recorded frames that were mutated, frames of its own making,
 * and attacks (floods of streams, windows and ids out of all order, sizes without data, header bombs), and for a while
 * it does not read. Then its connection ends, and nothing may be left. A round is drawn from the seed and its number
 * alone, so that any of them can be repeated.
 */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { status as Code, Metadata } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { Services, type TunnelChannel, type TunnelHandle, type TunnelOptions } from "../../src/index.ts"
import { Admission } from "../../src/internal/admission.ts"
import type { Carrier, CarrierEnd } from "../../src/internal/carrier.ts"
import { decodeClientFrame } from "../../src/internal/decode.ts"
import { encodeFrame } from "../../src/internal/encode.ts"
import { allExtensions } from "../../src/internal/extensions.ts"
import { type ClientFrame, noBytes, type ServerFrame, tunnelId } from "../../src/internal/frame.ts"
import { runClient, runServer } from "../../src/internal/tunnel.ts"
import { audited } from "./audit.ts"
import { type Draw, drawing } from "./draw.ts"
import { type ClientStreamHandler, definition, EchoClient, implementation, unary } from "./echo.ts"
import { spawned } from "./engines.ts"
import { tunnelPair } from "./network.ts"
import { framesOf, scenarios } from "./vectors.ts"

export interface FuzzOptions {
  readonly seed: number
  /** Ends after the round in which this many frames were sent, or at `until`, whichever comes first. */
  readonly frames: number
  /** A moment of `performance.now()`. */
  readonly until?: number
  /** Only this round. */
  readonly round?: number
  readonly progress?: (line: string) => void
}

export interface FuzzReport {
  readonly rounds: number
  readonly frames: number
  readonly healthyCalls: number
  readonly tunnelsEndedByRule: number
  /** Bytes of live heap and buffers after a collection, at a tenth of the way and at the end. */
  readonly heap: { readonly early: number; readonly late: number; readonly peak: number }
  readonly problems: ReadonlyArray<string>
}

const recorded = {
  client: scenarios.flatMap(framesOf).filter(({ from }) => from === "client"),
  server: scenarios.flatMap(framesOf).filter(({ from }) => from === "server")
}

const mutate = (draw: Draw, original: Buffer): Buffer => {
  let bytes = Buffer.from(original.subarray(0, 4096))
  for (let times = 1 + draw(3); times > 0 && bytes.length > 0; times--) {
    const at = draw(bytes.length)
    const tail = bytes.subarray(at)
    switch (draw(6)) {
      case 0:
        bytes[at] = draw(256)
        break
      case 1:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << draw(8))
        break
      case 2:
        bytes = bytes.subarray(0, at)
        break
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from([draw(256)]), tail])
        break
      case 4:
        bytes = Buffer.concat([bytes, tail])
        break
      default:
        bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from("ffffffffffffffffff01", "hex"), tail])
    }
  }
  return bytes
}

/** A recorded frame whose member is mutated, on a stream that there is: what breaks the id ends the round. */
const mutatedMember = (draw: Draw, original: Buffer, ids: Ids, fresh: boolean): Buffer => {
  const short = original[0] === 0x08 && (original[1] ?? 0xff) < 0x80
  if (!short || draw(20) === 0) return mutate(draw, original)
  const id = fresh && original[2] === 0x12 ? ids.fresh() : Math.max(0, ids.some())
  return Buffer.concat([varint(0x08), varint(id), mutate(draw, original.subarray(2))])
}

const numbers = [0, 1, 2, 10, 16_384, 65_535, 65_536, 65_537, 4 << 20, 0x7fff_ffff, 0xffff_fffe, 0xffff_ffff]
const strangeIds = [0, -1, -2, 2 ** 31, 2 ** 40, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]
const methods = Object.values(definition).map(({ path }) => path)
const strangeMethods = [
  "",
  "/",
  "//",
  "foo",
  "/a/b/c",
  "/curfew.test.Echo/",
  "x".repeat(3000),
  "/\u0000/\uffff"
]

const pick = <A>(draw: Draw, from: ReadonlyArray<A>): A => from[draw(from.length)] as A

const payload = (draw: Draw): Buffer =>
  Buffer.alloc(draw(20) === 0 ? pick(draw, [16_384, 65_536, 65_537]) : draw(300), draw(256))

/** Metadata of any shape: small, stalling, a deadline, over the limit, very many keys, no metadata at all. */
const headerBlock = (draw: Draw): Buffer | undefined => {
  const entry = (key: string, value: string): Buffer => {
    const val = Buffer.from(value)
    const name = Buffer.from(key)
    const values = Buffer.concat([varint(0x0a), varint(val.length), val])
    const inner = Buffer.concat([
      varint(0x0a),
      varint(name.length),
      name,
      varint(0x12),
      varint(values.length),
      values
    ])
    return Buffer.concat([varint(0x0a), varint(inner.length), inner])
  }
  switch (draw(12)) {
    case 0:
      return entry("stall", "yes")
    case 1:
      return entry("grpc-timeout", pick(draw, ["1n", "0m", "-5m", "1S", "x", "99999999H"]))
    case 2:
      return entry("bomb", "x".repeat(70_000))
    case 3:
      return Buffer.concat(Array.from({ length: 2000 }, (_, index) => entry(`k${index}`, "")))
    case 4:
      return Buffer.from(Array.from({ length: draw(40) }, () => draw(256)))
    case 5:
      return entry("", ":path")
    default:
      return draw(2) === 0 ? undefined : noBytes
  }
}

const varint = (value: number): Buffer => {
  const bytes: Array<number> = []
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest])
    bytes.push((rest % 128) | 0x80)
  }
}

/** The ids that a hostile peer knows of. */
class Ids {
  next = 1
  readonly used: Array<number> = []
  private readonly draw: Draw

  constructor(draw: Draw) {
    this.draw = draw
  }

  /** Mostly a stream that there is: what breaks the ids ends the tunnel, and the round with it. */
  some(): number {
    if (this.draw(4000) === 0) return pick(this.draw, strangeIds)
    const recent = this.used.slice(-8)
    return recent.length > 0 && this.draw(20) > 0
      ? pick(this.draw, recent)
      : pick(this.draw, [-1, ...this.used])
  }

  opened(id: number): void {
    this.used.push(id)
    if (this.used.length > 2000) this.used.shift()
  }

  fresh(): number {
    if (this.draw(4000) === 0) return this.some()
    const id = this.next
    this.next += 1 + (this.draw(10) === 0 ? this.draw(3) : 0)
    this.opened(id)
    return id
  }
}

const data = (draw: Draw, id: number): ClientFrame & ServerFrame => {
  const bytes = payload(draw)
  if (draw(3) === 0) return { _tag: "MoreData", id, data: bytes }
  return { _tag: "Message", id, size: draw(4) === 0 ? pick(draw, numbers) : bytes.length, data: bytes }
}

/** What may stand where a cancel carries its reason. */
const reason = (draw: Draw): Buffer => {
  const text = Buffer.from(pick(draw, ['{"_tag":"Requested"}', "{}", "null", '{"_tag":7}', "[[[[", "\u0000"]))
  return draw(2) === 0 ? text : mutate(draw, text)
}

const clientFrame = (draw: Draw, ids: Ids): ClientFrame => {
  switch (draw(10)) {
    case 0:
    case 1:
    case 2:
      return {
        _tag: "NewStream",
        id: ids.fresh(),
        method: draw(8) === 0 ? pick(draw, strangeMethods) : pick(draw, methods),
        headers: headerBlock(draw),
        window: pick(draw, numbers),
        revision: draw(10) === 0 ? draw(4) : draw(2)
      }
    case 3:
    case 4:
    case 5:
      return data(draw, ids.some())
    case 6:
      return { _tag: "HalfClose", id: ids.some() }
    case 7:
      if (draw(20) === 0) return { _tag: "Drain", id: pick(draw, [tunnelId, ids.some()]) }
      return { _tag: "Cancel", id: ids.some(), reason: draw(3) === 0 ? reason(draw) : undefined }
    case 8:
      return { _tag: "WindowUpdate", id: ids.some(), increment: pick(draw, numbers) }
    default:
      return draw(5) === 0 ? { _tag: "Unset", id: ids.some() } : data(draw, ids.some())
  }
}

const serverFrame = (draw: Draw, ids: Ids): ServerFrame => {
  const id = ids.some()
  switch (draw(10)) {
    case 0:
    case 1:
      return { _tag: "ResponseHeaders", id, headers: headerBlock(draw) ?? noBytes }
    case 2:
    case 3:
    case 4:
      return data(draw, id)
    case 5:
      return { _tag: "WindowUpdate", id, increment: pick(draw, numbers) }
    case 6:
    case 7: {
      const status = draw(3) === 0 ? mutate(draw, Buffer.from("08031203666f6f1a00", "hex")) : undefined
      return { _tag: "CloseStream", id, trailers: headerBlock(draw), status }
    }
    case 8:
      return draw(10) === 0
        ? { _tag: "Settings", id, revisions: [draw(9), draw(9)], window: pick(draw, numbers) }
        : { _tag: "WindowUpdate", id, increment: 1 }
    default:
      if (draw(20) === 0) return { _tag: "Drain", id: pick(draw, [tunnelId, id]) }
      return draw(5) === 0 ? { _tag: "Unset", id } : data(draw, id)
  }
}

/** A transport whose other end is the hostile peer; what our end writes is dropped, now or when the peer reads. */
const transport = (draw: Draw, wrote: (bytes: Buffer) => void = () => undefined) => {
  let onFrame: ((bytes: Buffer) => void) | undefined
  let onEnd: ((end: CarrierEnd) => void) | undefined
  let reading = true
  let held: (() => void) | undefined
  let over = false
  const finish = (end: CarrierEnd): void => {
    if (over) return
    over = true
    held?.()
    onEnd?.(end)
  }
  const carrier: Carrier = {
    peer: "hostile",
    metadata: new Metadata(),
    secure: false,
    negotiates: true,
    extensions: draw(2) === 0 ? allExtensions : new Set(),
    listen: (frame, end) => {
      onFrame = frame
      onEnd = end
    },
    framing: "frames",
    write: (frames, done) => {
      for (const bytes of frames) wrote(bytes)
      if (reading || over) {
        done()
        return
      }
      held = () => {
        held = undefined
        done()
      }
    },
    end: () => Effect.sync(() => finish({ code: 0, details: "ended here" }))
  }
  return {
    carrier,
    send: (bytes: Buffer) => onFrame?.(bytes),
    read: (on: boolean) => {
      reading = on
      if (on) held?.()
    },
    end: () => finish({ code: Code.UNAVAILABLE, details: "the peer is gone" }),
    over: () => over
  }
}

const nextTurn = Effect.callback<void>((resume) => {
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})

const handlers = {
  ClientStream: ((call, answer) => {
    // One that never reads, if the caller asks for it.
    if (call.metadata.get("stall").length > 0) return
    let bytes = 0
    call.on("data", (part: Buffer) => {
      bytes += part.length
    })
    call.on("end", () => answer(null, Buffer.from(`${bytes}`)))
  }) as ClientStreamHandler
}
const services = Services.empty.pipe(Services.add(definition, implementation(handlers)))

/** The limits as they are, or such as are soon met. */
const limits = (draw: Draw): Required<Pick<TunnelOptions, "maxBuffered" | "maxHandlers" | "maxStreams">> => ({
  maxBuffered: draw(2) === 0 ? 64 * 1024 * 1024 : 1 + draw(300_000),
  maxHandlers: draw(2) === 0 ? 1024 : 1 + draw(20),
  maxStreams: draw(2) === 0 ? 1024 : 1 + draw(50)
})

interface Round {
  readonly frames: number
  readonly byRule: boolean
}

/** What the hostile peer sends in one go. */
const volley = (draw: Draw, ids: Ids, role: "server" | "client"): ReadonlyArray<Buffer> => {
  const made = (): Buffer => encodeFrame(role === "server" ? clientFrame(draw, ids) : serverFrame(draw, ids))
  switch (draw(40)) {
    case 0: // A flood of new streams, none of which goes on.
      return Array.from({ length: 300 }, () =>
        encodeFrame({
          _tag: "NewStream",
          id: ids.fresh(),
          method: pick(draw, methods),
          headers: undefined,
          window: 0,
          revision: 1
        })
      )
    case 1: {
      // Huge sizes, little data, and never the rest.
      const message = (id: number): Buffer =>
        encodeFrame({ _tag: "Message", id, size: pick(draw, numbers), data: Buffer.alloc(1) })
      return ids.used.slice(-50).map(message)
    }
    case 2: {
      // A window of data for a reader that may not read.
      const id = ids.some()
      return Array.from({ length: 5 }, () =>
        encodeFrame({ _tag: "Message", id, size: 16_384, data: Buffer.alloc(16_384) })
      )
    }
    case 3: {
      const id = ids.some()
      return Array.from({ length: 50 }, () =>
        encodeFrame({ _tag: "WindowUpdate", id, increment: 0xffff_ffff })
      )
    }
    case 4:
    case 5:
    case 6: {
      const from = recorded[role === "server" ? "client" : "server"]
      return [mutatedMember(draw, pick(draw, from).bytes, ids, role === "server")]
    }
    default:
      return Array.from({ length: 1 + draw(8) }, () => (draw(400) === 0 ? mutate(draw, made()) : made()))
  }
}

const attack = (
  draw: Draw,
  ids: Ids,
  role: "server" | "client",
  peer: ReturnType<typeof transport>,
  check: Effect.Effect<void, string>,
  each: () => void
) =>
  Effect.gen(function* () {
    const most = 200 + draw(1200)
    let sent = 0
    while (sent < most && !peer.over()) {
      if (draw(60) === 0) peer.read(false)
      if (draw(20) === 0) peer.read(true)
      each()
      for (const bytes of volley(draw, ids, role)) {
        peer.send(bytes)
        sent++
      }
      yield* check
      if (draw(4) === 0) yield* nextTurn
    }
    return sent
  })

/** What a tunnel holds and runs stays within its limits, whatever comes. */
const within = (handle: TunnelHandle, { maxBuffered, maxStreams }: ReturnType<typeof limits>) =>
  Effect.flatMap(handle.stats, ({ heldBytes, streams }) => {
    if (heldBytes > maxBuffered) return Effect.fail(`${heldBytes} bytes are held, and ${maxBuffered} may be`)
    return streams > maxStreams
      ? Effect.fail(`${streams} streams are open, and ${maxStreams} may be`)
      : Effect.void
  })

const serverRound = (draw: Draw): Effect.Effect<Round, string> =>
  Effect.scoped(
    Effect.gen(function* () {
      const limited = limits(draw)
      const peer = transport(draw)
      const opened = yield* spawned<TunnelHandle>((ready) =>
        runServer(peer.carrier, "forward", services, new Admission(), limited, ready)
      )
      const handle = yield* Effect.orDie(Deferred.await(opened))
      const ids = new Ids(draw)
      const frames = yield* attack(draw, ids, "server", peer, within(handle, limited), () => undefined)
      return yield* ended(handle, peer, frames)
    })
  )

const clientRound = (draw: Draw): Effect.Effect<Round, string> =>
  Effect.scoped(
    Effect.gen(function* () {
      const limited = limits(draw)
      const ids = new Ids(draw)
      const peer = transport(draw, (bytes) => {
        const frame = decodeClientFrame(bytes)
        if (frame._tag === "NewStream") ids.opened(frame.id)
      })
      const opened = yield* spawned<TunnelChannel>((ready) =>
        runClient(peer.carrier, "forward", limited, ready)
      )
      const window = pick(draw, numbers)
      peer.send(encodeFrame({ _tag: "Settings", id: tunnelId, revisions: [0, draw(3)], window }))
      const channel = yield* Effect.orDie(Deferred.await(opened))
      const client = channel.client(EchoClient)
      let begun = 0
      let over = 0
      const begin = (): void => {
        if (draw(3) > 0 || begun - over >= 500) return
        begun++
        const done = (): void => void over++
        const request = Buffer.alloc(draw(200))
        const options = draw(6) === 0 ? { deadline: Date.now() + draw(20) } : {}
        if (draw(2) === 0) {
          const call = client.Unary(request, new Metadata(), options, done)
          if (draw(5) === 0) call.cancel()
          return
        }
        const call = client.Bidi(new Metadata(), options)
        call.on("error", () => undefined)
        call.on("status", done)
        // Some callers never read.
        if (draw(4) > 0) call.on("data", () => undefined)
        call.write(request)
        if (draw(2) === 0) call.end()
        if (draw(5) === 0) call.cancel()
      }
      const frames = yield* attack(draw, ids, "client", peer, within(channel, limited), begin)
      const round = yield* ended(channel, peer, frames)
      for (let turns = 0; over < begun && turns < 1000; turns++) yield* nextTurn
      // A paused caller gets its status once it has read; here nobody will.
      return round
    })
  )

/** The peer is gone: the tunnel ends, and leaves nothing. */
const ended = (handle: TunnelHandle, peer: ReturnType<typeof transport>, frames: number) =>
  Effect.gen(function* () {
    peer.end()
    const end = yield* Effect.timeoutOption(handle.closed, "10 seconds")
    if (end._tag === "None") return yield* Effect.fail("the tunnel did not end with its connection")
    const { deadlines, streams } = yield* handle.stats
    if (streams > 0 || deadlines > 0)
      return yield* Effect.fail(`${streams} streams and ${deadlines} deadlines are left of an ended tunnel`)
    return { frames, byRule: end.value._tag === "Violated" }
  })

const collector = (): (() => void) => {
  setFlagsFromString("--expose-gc")
  return runInNewContext("gc") as () => void
}

const live = (gc: () => void): number => {
  gc()
  gc()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const mebi = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`

/** Runs rounds; problems are collected, each with what repeats it. */
export const fuzz = (options: FuzzOptions): Effect.Effect<FuzzReport> =>
  Effect.gen(function* () {
    const gc = collector()
    const problems: Array<string> = []
    const broken = (error: unknown): void => void problems.push(`the process: ${String(error)}`)
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        process.on("uncaughtException", broken)
        process.on("unhandledRejection", broken)
      }),
      () =>
        Effect.sync(() => {
          process.off("uncaughtException", broken)
          process.off("unhandledRejection", broken)
        })
    )
    const healthy = yield* Effect.orDie(Effect.mapError(tunnelPair("forward"), String))
    let [rounds, frames, healthyCalls, byRule, early, peak] = [0, 0, 0, 0, 0, 0]
    let shown = performance.now()
    const first = options.round ?? 0
    for (let round = first; ; round++) {
      const draw = drawing(Math.imul(options.seed, 2_654_435_761) + Math.imul(round, 40_503))
      const role = draw(2) === 0 ? "server" : "client"
      const [outcome, findings] = yield* audited(
        Effect.result(
          Effect.catchDefect(role === "server" ? serverRound(draw) : clientRound(draw), (defect) =>
            Effect.fail(`it threw: ${String(defect)}`)
          )
        )
      )
      const again = `npm run fuzz -- --seed ${options.seed} --round ${round}`
      const problem = (what: string): void => void problems.push(`${what} (${role}; ${again})`)
      if (outcome._tag === "Success") {
        frames += outcome.success.frames
        if (outcome.success.byRule) byRule++
      } else problem(outcome.failure)
      if (findings.liveFibers !== 0) problem(`${findings.liveFibers} fibers are left`)
      for (const text of findings.errorLogs.slice(0, 3)) problem(`it logged: ${text}`)
      rounds++
      const sent = Buffer.from(`round ${round}`)
      const answer = yield* Effect.promise(() =>
        unary(healthy.client, sent, { call: { deadline: Date.now() + 20_000 } })
      )
      if (answer.code === Code.OK && answer.value?.equals(sent) === true) healthyCalls++
      else problem(`the healthy tunnel answered ${answer.code} ${answer.details}`)
      const { arrayBuffers, heapUsed } = process.memoryUsage()
      peak = Math.max(peak, heapUsed + arrayBuffers)
      if (early === 0 && frames >= options.frames / 10) early = live(gc)
      if (performance.now() - shown > 5_000) {
        shown = performance.now()
        const memory = mebi(heapUsed + arrayBuffers)
        options.progress?.(`${frames} frames in ${rounds} rounds, ${memory}, ${problems.length} problems`)
      }
      const late = options.until !== undefined && performance.now() >= options.until
      if (options.round !== undefined || frames >= options.frames || late || problems.length >= 20) break
    }
    const late = live(gc)
    if (early > 0 && late - early > 24 * 1024 * 1024)
      problems.push(`the heap grew from ${mebi(early)} to ${mebi(late)}`)
    return {
      rounds,
      frames,
      healthyCalls,
      tunnelsEndedByRule: byRule,
      heap: { early, late, peak },
      problems
    }
  }).pipe(Effect.scoped)
