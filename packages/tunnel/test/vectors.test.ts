import { describe, expect, it } from "@effect/vitest"
import { status as Code, Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { encodeFrame } from "../src/internal/encode.ts"
import { MetadataProblem, metadataToWire } from "../src/internal/metadata.ts"
import { metadataFromWire } from "../src/internal/metadataFromWire.ts"
import { statusFromWire, statusToWire } from "../src/internal/rpcStatus.ts"
import { unary } from "./support/echo.ts"
import { clientEnd } from "./support/engines.ts"
import { bytesTo, recordedSaid, replayClient, replayServer } from "./support/replay.ts"
import {
  type ClientDifference,
  clientDifferences,
  clientPlans,
  type ServerDifference,
  serverDifferences,
  serverPlans
} from "./support/vectorDifferences.ts"
import { decode, framesOf, type Recording, type Scenario, scenarios } from "./support/vectors.ts"

const frames = scenarios.flatMap((scenario) =>
  framesOf(scenario).map((frame) => ({ scenario: scenario.name, ...frame }))
)

const kindOf: Readonly<Record<string, string>> = {
  settings: "Settings",
  new_stream: "NewStream",
  request_message: "Message",
  response_message: "Message",
  more_request_data: "MoreData",
  more_response_data: "MoreData",
  half_close: "HalfClose",
  cancel: "Cancel",
  window_update: "WindowUpdate",
  response_headers: "ResponseHeaders",
  close_stream: "CloseStream"
}

/** Upper case, a pseudo-header and an empty key: the Go library passes them on, grpc-js has no such keys. */
const otherMetadata = new Set(["S49-uppercase-and-reserved-request-metadata"])

/**
 * The server of `S…` is the Go library and its client a script; with `C…` it is the other way round. In R07 the tunnel
 * server is a script too: it breaks a rule, and the client is to notice.
 */
const withFrames = scenarios.filter((scenario) => framesOf(scenario).length > 0)
const servers = withFrames.filter(({ name }) => !name.startsWith("C") && !name.startsWith("R07"))
const clients = withFrames.filter(({ name }) => !/^S|^C4[49]/.test(name))

describe("every recorded frame", () => {
  it("is read, and written again byte for byte", () => {
    expect(frames.length).toBe(757)
    const other = frames.filter((frame) => {
      const read = decode(frame)
      return read._tag === "Malformed" || !encodeFrame(read).equals(frame.bytes)
    })
    expect(other.map(({ says, scenario }) => `${scenario}: ${says}`)).toEqual([])
  })

  it("names the id and the kind that were recorded beside it", () => {
    for (const frame of frames) {
      const read = decode(frame)
      const [, id, kind = ""] = /^id=(-?\d+) (\w*)/.exec(frame.says) ?? []
      expect(read._tag, frame.says).toBe(kindOf[kind] ?? "Unset")
      expect(read.id, frame.says).toBe(Number(id))
    }
  })

  it("carries metadata that is written again byte for byte, but for keys that grpc-js does not have", () => {
    const other = frames.flatMap((frame) => {
      const read = decode(frame)
      const block = read._tag === "CloseStream" ? read.trailers : "headers" in read ? read.headers : undefined
      if (block === undefined) return []
      const metadata = metadataFromWire(block)
      if (metadata instanceof MetadataProblem) return [frame.scenario]
      const again = metadataToWire(metadata)
      return again instanceof MetadataProblem || !again.equals(block) ? [frame.scenario] : []
    })
    expect(new Set(other)).toEqual(otherMetadata)
  })

  it("carries statuses that are written again byte for byte, but for an OK that is spelled out", () => {
    let spelled = 0
    for (const frame of frames) {
      const read = decode(frame)
      if (read._tag !== "CloseStream") continue
      const status = statusFromWire(read.trailers, read.status)
      if (status instanceof MetadataProblem) throw new Error(status.detail)
      const again = statusToWire(status)
      if (again instanceof MetadataProblem) throw new Error(again.detail)
      if (status.code === Code.OK && read.status !== undefined) spelled++
      else expect(again.status?.toString("hex")).toBe(read.status?.toString("hex"))
    }
    expect(spelled).toBeGreaterThan(0)
  })
})

/** What is expected: what the recorded end said, but for the differences. */
const expectedSaid = (
  recording: Recording,
  from: "client" | "server",
  differences: Readonly<Record<number, ReadonlyArray<string>>> = {}
) =>
  Object.fromEntries(
    Object.entries<ReadonlyArray<string>>({ ...recordedSaid(recording, from).said, ...differences }).filter(
      ([, words]) => words.length > 0
    )
  )

const outerEnded = ({ items }: Scenario): boolean =>
  items.some(
    (item) =>
      item._tag === "Result" &&
      item.result.startsWith("outer stream after script") &&
      item.value.startsWith("STATUS")
  )

const checkCredit = (granted: ReadonlyMap<number, number>, received: ReadonlyMap<number, number>): void => {
  for (const [id, bytes] of granted)
    expect(bytes, `credit of ${id}`).toBeLessThanOrEqual(received.get(id) ?? 0)
}

describe("our tunnel server, fed what the recorded tunnel client sent, answers as recorded:", () => {
  it.live.each(servers)("$name: $about", (scenario) =>
    Effect.gen(function* () {
      const difference: ServerDifference | undefined = serverDifferences[scenario.name]
      for (const recording of scenario.tunnels) {
        const replayed = yield* replayServer(recording, difference ?? serverPlans[scenario.name])
        expect(replayed.said).toEqual(expectedSaid(recording, "server", difference?.said))
        checkCredit(replayed.granted, bytesTo(recording, "server"))
        const rule = difference?.violates
        if (rule === undefined) expect(replayed.end).toBeUndefined()
        else expect(replayed.end).toMatchObject({ _tag: "Violated", error: { rule } })
        if (difference?.violates === undefined && difference?.survives === undefined)
          expect(outerEnded(scenario)).toBe(false)
      }
    }).pipe(Effect.scoped)
  )
})

const callResults =
  /^(Unary|Unary error|Invoke|CloseAndRecv|Recv end|in-flight unary|RPC during.*|next RPC over.*|reverse RPC.*|creds requiring.*|Header)$/

/** The codes that the recorded callers got, in the order of their calls; none for an error that is no status. */
const recordedCodes = ({ items }: Scenario): ReadonlyArray<number | undefined> =>
  items.flatMap((item) => {
    if (item._tag !== "Result" || !callResults.test(item.result)) return []
    const code = /STATUS \w+\((\d+)\)/.exec(item.value)?.[1]
    if (code !== undefined) return [Number(code)]
    const fine = item.value.includes("<nil>") || (item.result === "Recv end" && item.value.includes("EOF"))
    return [fine ? 0 : undefined]
  })

describe("our tunnel client, fed what the recorded tunnel server sent, does and reports what is recorded:", () => {
  it.live.each(clients)("$name: $about", (scenario) =>
    Effect.gen(function* () {
      const difference: ClientDifference | undefined = clientDifferences[scenario.name]
      const plan = difference ?? clientPlans[scenario.name]
      for (const recording of scenario.tunnels) {
        const replayed = yield* replayClient(recording, plan)
        expect(replayed.said).toEqual(expectedSaid(recording, "client", difference?.said))
        checkCredit(replayed.granted, bytesTo(recording, "client"))
        expect(replayed.refused).toBe(difference?.refused)
        const codes = recordedCodes(scenario)
        for (const [index, call] of replayed.calls.entries())
          expect(call.code, `call ${call.id}`).toBe(difference?.codes?.[call.id] ?? codes[index])
        const rule = difference?.violates
        if (rule !== undefined) expect(replayed.end).toMatchObject({ _tag: "Violated", error: { rule } })
        else if (plan?.loses === undefined && plan?.closes !== true) expect(replayed.end).toBeUndefined()
        else expect(replayed.end).toBeDefined()
      }
    }).pipe(Effect.scoped)
  )
})

describe("the differences", () => {
  it("belong to recorded scenarios, have a reason, and differ", () => {
    for (const [role, table] of [
      ["server", serverDifferences],
      ["client", clientDifferences]
    ] as const)
      for (const [name, { said = {}, why }] of Object.entries(table)) {
        const scenario = scenarios.find((scenario) => scenario.name === name)
        expect(scenario, name).toBeDefined()
        expect(why.length, name).toBeGreaterThan(20)
        const recorded = Object.assign(
          {},
          ...(scenario?.tunnels ?? []).map((recording) => recordedSaid(recording, role).said)
        ) as Record<string, ReadonlyArray<string>>
        for (const [id, words] of Object.entries(said)) expect(words, name).not.toEqual(recorded[id] ?? [])
      }
  })
})

describe("the recorded scenarios that are no exchange of frames", () => {
  it("are these, each with its own test or none to be had", () => {
    const rest = scenarios.filter((scenario) => !servers.includes(scenario) && !clients.includes(scenario))
    expect(Object.fromEntries(rest.map(({ name }) => [name, elsewhere[name]]))).toEqual(elsewhere)
  })

  it.live("C44: metadata that cannot be carried fails its own call, and the tunnel lives on", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const metadata = new Metadata()
      metadata.set("k-bin", Buffer.from([0xff, 0xfe]))
      const failed = yield* Effect.promise(() => unary(end.client, Buffer.from("hi"), { metadata }))
      expect(failed.code).toBe(Code.INTERNAL)
      expect(end.written).toEqual([])
      end.client.Bidi().on("error", () => undefined)
      expect((yield* end.sent(1, "NewStream")).id).toBe(1)
    }).pipe(Effect.scoped)
  )

  it.live("C49: a request that cannot be serialized leaves no stream open at either end", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const serialize = (): Buffer => {
        throw new Error("not to be serialized")
      }
      const identity = (bytes: Buffer): Buffer => bytes
      const codes: Array<number | undefined> = []
      for (let count = 0; count < 5; count++)
        codes.push(
          yield* Effect.promise(
            () =>
              new Promise<number | undefined>((resolve) => {
                end.client.makeUnaryRequest("/x/y", serialize, identity, Buffer.alloc(0), (error) =>
                  resolve(error?.code)
                )
              })
          )
        )
      expect(codes).toEqual(Array(5).fill(Code.INTERNAL))
      const said = new Map<number, Array<string>>()
      for (const frame of end.written)
        if (frame.id !== undefined) said.set(frame.id, [...(said.get(frame.id) ?? []), frame._tag])
      for (const tags of said.values()) expect(tags.at(-1)).toBe("Cancel")
      expect((yield* end.channel.stats).streams).toBe(0)
    }).pipe(Effect.scoped)
  )
})

/** Why a scenario is not replayed, and where the same is tested. */
const elsewhere: Readonly<Record<string, string>> = {
  "C02-no-response-headers": "no frame travels: openTimeout, in tunnels.test.ts",
  "C44-non-utf8-binary-metadata": "nothing reaches the wire: below",
  "C49-marshal-failure-leak": "nothing of the request reaches the wire: below",
  "G11-trailer-race": "a count of 80,000 calls; here trailers come with the status",
  "M04-small-unary-answered-before-half-close": "a count of 3,000 calls; early answers: C35 above",
  "S60-forward-without-handlers": "no frame travels: the status of the outer call",
  "S61-reverse-disabled": "no frame travels: the status of the outer call",
  "S62-empty-method-name":
    "no frame was recorded, the process died: an empty method name, in serverEnd.test.ts"
}
