/**
 * Puts one of our ends in the place of the recorded one: it gets what the recorded peer sent, in the recorded order,
 * and never earlier than it has itself said what the recorded end had said by then.
 */
import type * as grpc from "@grpc/grpc-js"
import { type Client, Metadata, makeClientConstructor } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { definition, implementation, messageWords } from "../../../../interop/src/testService.ts"
import {
  Services,
  type TunnelChannel,
  type TunnelEnd,
  type TunnelEvent,
  type TunnelHandle
} from "../../src/index.ts"
import { Admission } from "../../src/internal/admission.ts"
import { type ClientFrame, type Malformed, noBytes, type ServerFrame } from "../../src/internal/frame.ts"
import { MetadataProblem, metadataToWire } from "../../src/internal/metadata.ts"
import { metadataFromWire } from "../../src/internal/metadataFromWire.ts"
import { runClient, runServer } from "../../src/internal/tunnel.ts"
import { spawned } from "./engines.ts"
import { fakeClient, fakeServer, type Peer } from "./memory.ts"
import { decode, framesOf, type Recording, Transcript } from "./vectors.ts"

interface Replayed {
  /** What our end said, by stream. */
  readonly said: Record<string, ReadonlyArray<string>>
  /** Bytes of credit that our end gave, by stream. */
  readonly granted: ReadonlyMap<number, number>
  /** How our end saw the tunnel end, when it ended before the replay did. */
  readonly end: TunnelEnd | undefined
}

const words = messageWords

/** What one recorded end said up to a place in the recording. */
export const recordedSaid = (recording: Recording, from: "client" | "server"): Transcript => {
  const transcript = new Transcript(words)
  for (const frame of framesOf(recording)) if (frame.from === from) transcript.add(decode(frame))
  return transcript
}

/** Bytes that the recorded peer of `from` sent, by stream. */
export const bytesTo = (recording: Recording, from: "client" | "server"): ReadonlyMap<number, number> =>
  recordedSaid(recording, from === "client" ? "server" : "client").sent

/** Waits until our end has said at least as much on each stream, or until its tunnel has ended. */
const caughtUp = <In extends ClientFrame | ServerFrame>(
  peer: Peer<In | Malformed, never>,
  wanted: ReadonlyMap<number, number>,
  over: Effect.Effect<unknown>
): Effect.Effect<unknown> => {
  const enough = (): boolean => {
    const said = new Transcript(words)
    for (const frame of peer.written) said.add(frame)
    return [...wanted].every(([id, count]) => said.of(id).length >= count)
  }
  if (wanted.size === 0 || enough()) return Effect.void
  return Effect.raceFirst(
    peer.next((_frame): _frame is never => enough()),
    over
  )
}

/** How much of what is recorded our end is waited for, by stream: as far as it is to say the same. */
const counts = (
  transcript: Transcript,
  said: Readonly<Record<number, ReadonlyArray<string>>> = {}
): ReadonlyMap<number, number> =>
  new Map(
    [...transcript.streams].map(([id, recorded]) => {
      const own = said[id] ?? recorded
      const parts = recorded.findIndex((words, index) => words !== own[index])
      return [id, parts < 0 ? recorded.length : parts] as const
    })
  )

const countsOf = (said: Readonly<Record<number, ReadonlyArray<string>>> = {}): ReadonlyMap<number, number> =>
  new Map(Object.entries(said).map(([id, words]) => [Number(id), words.length] as const))

export interface ServerPlan {
  /** What our end says instead, by stream. */
  readonly said?: Readonly<Record<number, ReadonlyArray<string>>>
  readonly flowControl?: boolean
  /** The handler answers after its caller has left; wait for that answer to be dropped. */
  readonly late?: boolean
  /** The server begins to shut down before this stream is opened. */
  readonly shutdownBefore?: number
}

/** Our tunnel server, with the test service, in the place of the recorded one. */
export const replayServer = (recording: Recording, plan: ServerPlan = {}) =>
  Effect.gen(function* () {
    const late = Deferred.makeUnsafe<void>()
    const observer = ({ _tag }: TunnelEvent): void => {
      if (_tag === "LateWrite") Deferred.doneUnsafe(late, Effect.void)
    }
    const peer = fakeClient({
      negotiates: recording.direction === "forward" ? recording.asked : recording.answered === true
    })
    const admission = new Admission()
    const services = Services.empty.pipe(Services.add(definition, implementation))
    const opened = yield* spawned<TunnelHandle>((ready) =>
      runServer(
        peer.carrier,
        recording.direction,
        services,
        admission,
        { observer, flowControl: plan.flowControl ?? true },
        ready
      )
    )
    const handle = yield* Effect.orDie(Deferred.await(opened))
    const recorded = new Transcript(words)
    let highest = 0
    for (const item of recording.items) {
      if (item._tag === "Outer" && item.outer.includes("client")) {
        break
      }
      if (item._tag !== "Frame") continue
      const frame = decode(item.frame)
      if (item.frame.from === "server") {
        recorded.add(frame)
        continue
      }
      yield* caughtUp(peer, counts(recorded, plan.said), handle.closed)
      if (frame._tag === "NewStream") highest = Math.max(highest, frame.id)
      if (frame._tag === "NewStream" && frame.id === plan.shutdownBefore) admission.refuse()
      peer.sendBytes(item.frame.bytes)
    }
    yield* caughtUp(peer, counts(recorded, plan.said), handle.closed)
    yield* caughtUp(peer, countsOf(plan.said), handle.closed)
    if (plan.late === true) yield* Deferred.await(late)
    // One more call shows whether the tunnel lives on; its answer comes after all that was said before.
    const probe = highest + 100
    peer.send({ _tag: "NewStream", id: probe, method: "", headers: undefined, window: 0, revision: 1 })
    const probed = peer.next((frame): frame is never => frame._tag === "CloseStream" && frame.id === probe)
    const end = yield* Effect.raceFirst(
      Effect.as(probed, undefined),
      Effect.map(handle.closed, (end): TunnelEnd | undefined => end)
    )
    const transcript = new Transcript(words)
    for (const frame of peer.written) if (frame.id !== probe) transcript.add(frame)
    return { said: transcript.said, granted: transcript.granted, end } satisfies Replayed
  })

/** What the caller does beside sending messages. */
export interface ClientPlan {
  /** What our end says instead, by stream. */
  readonly said?: Readonly<Record<number, ReadonlyArray<string>>>
  /** The caller cancels its call where the recorded one did. */
  readonly cancels?: boolean
  /** The caller gives its call this many milliseconds. */
  readonly deadline?: number
  /** The tunnel is closed at this end once the calls are on the wire. */
  readonly closes?: boolean
  /** How the outer stream ends once the calls are on the wire. */
  readonly loses?: { readonly code: number; readonly details: string }
  readonly revisionZero?: boolean
  /** How long the settings may take; default 10 seconds. */
  readonly openTimeout?: Duration.Input
}

interface CallsReplayed extends Replayed {
  /** The code with which the tunnel did not open. */
  readonly refused: number | undefined
  readonly calls: ReadonlyArray<{
    readonly id: number
    readonly code: number
    readonly messages: ReadonlyArray<string>
    readonly headers: string
    readonly trailers: string
  }>
}

const Stub = makeClientConstructor(definition, "TestService")
const bidiPath = "/grpchantesting.TestService/BidiStream"
const identity = (bytes: Buffer): Buffer => bytes
/** Takes what the test service's own deserializer takes. */
const checked = (bytes: Buffer): Buffer => {
  definition["Unary"]?.responseDeserialize(bytes)
  return bytes
}
const streams = (path: string, key: "requestStream" | "responseStream"): boolean =>
  Object.values(definition).find((method) => method.path === path)?.[key] ?? false

interface Begun {
  readonly id: number
  readonly call: grpc.ClientDuplexStream<Buffer, Buffer>
  readonly done: Promise<CallsReplayed["calls"][number]>
  readonly unary: boolean
}

const pairs = (metadata: grpc.Metadata): string => {
  const block = metadataToWire(metadata)
  const frame: ServerFrame = {
    _tag: "ResponseHeaders",
    id: 1,
    headers: block instanceof MetadataProblem ? noBytes : block
  }
  const transcript = new Transcript(words)
  transcript.add(frame)
  return transcript.of(1)[0]?.replace("headers ", "") ?? ""
}

/** Starts a call as the recorded caller did, with the stub that fits the method. */
const begin = (
  client: Client,
  id: number,
  path: string,
  metadata: grpc.Metadata,
  options: grpc.CallOptions,
  whole: Buffer | undefined
): Begun => {
  const [many, answers] = [streams(path, "requestStream"), streams(path, "responseStream")]
  const messages: Array<string> = []
  let headers = "{}"
  let failed: number | undefined
  const single = (error: grpc.ServiceError | null, answer?: Buffer): void => {
    failed = error?.code
    if (answer !== undefined) messages.push(words(answer))
  }
  const call = (
    many
      ? answers
        ? client.makeBidiStreamRequest(path, identity, checked, metadata, options)
        : client.makeClientStreamRequest(path, identity, checked, metadata, options, single)
      : answers
        ? client.makeServerStreamRequest(path, identity, checked, whole ?? noBytes, metadata, options)
        : client.makeUnaryRequest(path, identity, checked, whole ?? noBytes, metadata, options, single)
  ) as grpc.ClientDuplexStream<Buffer, Buffer>
  if (answers) call.on("data", (message: Buffer) => messages.push(words(message)))
  call.on("metadata", (received: grpc.Metadata) => {
    headers = pairs(received)
  })
  call.on("error", () => undefined)
  const done = new Promise<CallsReplayed["calls"][number]>((resolve) => {
    call.on("status", ({ code, metadata }: grpc.StatusObject) =>
      // A single answer comes by its callback, a turn after the status at the latest.
      setImmediate(() => resolve({ id, code: failed ?? code, messages, headers, trailers: pairs(metadata) }))
    )
  })
  return { id, call, done, unary: !many }
}

/** The whole request of a call whose messages the stub takes at once; what was never sent is made of zeros. */
const wholeRequest = (recording: Recording, id: number): Buffer | undefined => {
  let size = 0
  const parts: Array<Buffer> = []
  for (const recorded of framesOf(recording)) {
    if (recorded.from !== "client") continue
    const frame = decode(recorded)
    if (frame.id !== id || !(frame._tag === "Message" || frame._tag === "MoreData")) continue
    if (frame._tag === "Message") size = frame.size
    parts.push(frame.data)
  }
  const have = Buffer.concat(parts)
  return Buffer.concat([have, Buffer.alloc(Math.max(0, size - have.length))])
}

/** Our tunnel client in the place of the recorded one, with a caller that does what the recorded caller did. */
export const replayClient = (recording: Recording, plan: ClientPlan = {}) =>
  Effect.gen(function* () {
    const peer = fakeServer({
      negotiates: recording.direction === "forward" ? recording.answered === true : recording.asked
    })
    const options = plan.revisionZero === true ? { flowControl: false } : {}
    const opened = yield* spawned<TunnelChannel>((ready) =>
      runClient(
        peer.carrier,
        recording.direction,
        { ...options, openTimeout: plan.openTimeout ?? "10 seconds" },
        ready
      )
    )
    const recorded = new Transcript(words)
    const begun = new Map<number, Begun>()
    let channel: TunnelChannel | undefined
    let refused: number | undefined
    const open = Effect.gen(function* () {
      if (channel !== undefined || refused !== undefined) return
      const exit = yield* Effect.result(Deferred.await(opened))
      if (exit._tag === "Success") channel = exit.success
      else refused = (exit.failure as { readonly code: number }).code
    })
    const client = (): Client => (channel as TunnelChannel).client<Client>(Stub)
    const over = Effect.suspend(() => channel?.closed ?? Effect.never)
    const partial = new Map<number, { size: number; parts: Array<Buffer> }>()
    const data = (id: number, piece: Buffer): void => {
      const message = partial.get(id)
      if (message === undefined) return
      message.parts.push(piece)
      const bytes = Buffer.concat(message.parts)
      const made = begun.get(id)
      if (bytes.length === message.size && made?.unary === false) made.call.write(bytes)
    }
    for (const item of recording.items) {
      if (item._tag === "Outer") break
      if (item._tag !== "Frame") continue
      const frame = decode(item.frame)
      if (item.frame.from === "server") {
        yield* caughtUp(peer, counts(recorded, plan.said), over)
        peer.sendBytes(item.frame.bytes)
        continue
      }
      yield* open
      if (channel === undefined) break
      if (frame._tag === "Cancel") yield* caughtUp(peer, counts(recorded, plan.said), over)
      recorded.add(frame)
      if (frame._tag === "NewStream") {
        const metadata = metadataFromWire(frame.headers ?? noBytes) as grpc.Metadata
        const call = plan.deadline === undefined ? {} : { deadline: Date.now() + plan.deadline }
        begun.set(
          frame.id,
          begin(client(), frame.id, frame.method, metadata, call, wholeRequest(recording, frame.id))
        )
      } else if (frame._tag === "Message") {
        partial.set(frame.id, { size: frame.size, parts: [] })
        data(frame.id, frame.data)
      } else if (frame._tag === "MoreData") data(frame.id, frame.data)
      else if (frame._tag === "HalfClose") {
        const made = begun.get(frame.id)
        if (made?.unary === false) made.call.end()
      } else if (frame._tag === "Cancel" && plan.cancels === true) begun.get(frame.id)?.call.cancel()
    }
    yield* open
    yield* caughtUp(peer, counts(recorded, plan.said), over)
    if (plan.closes === true) yield* (channel as TunnelChannel).close()
    if (plan.loses !== undefined) peer.end(plan.loses)
    const calls = yield* Effect.promise(() => Promise.all([...begun.values()].map(({ done }) => done)))
    let end: TunnelEnd | undefined
    const transcript = new Transcript(words)
    yield* caughtUp(peer, countsOf(plan.said), over)
    for (const frame of peer.written) transcript.add(frame)
    if (channel !== undefined) {
      // One more call shows whether the tunnel lives on.
      const before = peer.written.length
      const probe = begin(client(), 0, bidiPath, new Metadata(), {}, undefined)
      const opens = peer.next(
        (frame): frame is never => frame._tag === "NewStream" && peer.written.indexOf(frame) >= before
      )
      end = yield* Effect.raceFirst(
        Effect.as(opens, undefined),
        Effect.map(channel.closed, (end): TunnelEnd | undefined => end)
      )
      probe.call.cancel()
    }
    return { said: transcript.said, granted: transcript.granted, end, refused, calls } satisfies CallsReplayed
  })
