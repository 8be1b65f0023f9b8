/** When the writer writes: counted in turns of the event loop, never timed. */
import { describe, expect, it } from "@effect/vitest"
import { Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { Carrier } from "../src/internal/carrier.ts"
import { decodeClientFrame } from "../src/internal/decode.ts"
import { Held, type Holder } from "../src/internal/held.ts"
import { run } from "../src/internal/pump.ts"
import { SendWindow } from "../src/internal/window.ts"
import { Outbound, Outbox } from "../src/internal/writer.ts"
import { turns } from "./support/turns.ts"

/** A carrier that keeps what it is given until it is let go. */
const slow = () => {
  const writes: Array<ReadonlyArray<string>> = []
  const waiting: Array<() => void> = []
  const carrier: Carrier = {
    peer: "memory",
    metadata: new Metadata(),
    secure: false,
    negotiates: true,
    extensions: new Set(),
    framing: "frames",
    listen: () => undefined,
    write: (frames, done) => {
      writes.push(frames.map((bytes) => decodeClientFrame(bytes)._tag))
      waiting.push(done)
    },
    end: () => Effect.void
  }
  return { carrier, writes, letGo: () => waiting.shift()?.() }
}

const stream = (id: number): Outbound => new Outbound(new SendWindow(1_000_000, 1), id)

const pumping = Effect.suspend(() => pumpingFor(new Held()))

const pumpingFor = Effect.fnUntraced(function* (held: Held) {
  const outbox = new Outbox(held)
  const { carrier, letGo, writes } = slow()
  const pump = yield* Effect.forkScoped(run(outbox, carrier))
  yield* Effect.yieldNow
  return { outbox, writes, letGo, pump }
})

describe("the pump", () => {
  it.live("writes once for all that was queued in a turn, and calls nobody back inside its send", () =>
    Effect.gen(function* () {
      const { outbox, writes } = yield* pumping
      let sent = 0
      for (let id = 1; id <= 3; id++) outbox.message(stream(id), Buffer.from("x"), () => sent++)
      expect([sent, writes.length]).toEqual([0, 0])
      yield* turns(3)
      expect(sent).toBe(3)
      expect(writes).toEqual([["Message", "Message", "Message"]])
    }).pipe(Effect.scoped)
  )

  /** What has been put off until the current operation is over has run by then. */
  const operationEnds = Effect.callback<void>((resume) => process.nextTick(() => resume(Effect.void)))

  it.live("waits for the rest of the turn only where others may have something to send", () =>
    Effect.gen(function* () {
      const held = new Held()
      const { letGo, outbox, writes } = yield* pumpingFor(held)
      const send = (): void => outbox.message(stream(1), Buffer.from("x"), () => undefined)
      const holders = [1, 2, 3].map(() => ({ listed: false, before: undefined, after: undefined }) as Holder)
      for (const holder of holders) {
        held.holders.add(holder)
        send()
        send()
        yield* operationEnds
        if (holder !== holders[2]) {
          expect(writes.length).toBe(holders.indexOf(holder) + 1)
          letGo()
        }
      }
      expect(writes.length).toBe(2)
      yield* turns(1)
      expect(writes).toEqual([1, 2, 3].map(() => ["Message", "Message"]))
    }).pipe(Effect.scoped)
  )

  it.live("has one write on its way, and gathers what comes meanwhile", () =>
    Effect.gen(function* () {
      const { letGo, outbox, writes } = yield* pumping
      outbox.urgent({ _tag: "Cancel", id: 1 })
      yield* turns(3)
      outbox.urgent({ _tag: "Cancel", id: 2 })
      yield* turns(3)
      outbox.halfClose(stream(3))
      yield* turns(3)
      expect(writes).toEqual([["Cancel"]])
      letGo()
      yield* turns(3)
      expect(writes).toEqual([["Cancel"], ["Cancel", "HalfClose"]])
    }).pipe(Effect.scoped)
  )

  it.live("ends when it is finished, has nothing left, and what it wrote was taken", () =>
    Effect.gen(function* () {
      const { letGo, outbox, pump, writes } = yield* pumping
      outbox.urgent({ _tag: "Cancel", id: 1 })
      outbox.finish()
      yield* turns(3)
      expect(writes).toEqual([["Cancel"]])
      expect(pump.pollUnsafe()).toBeUndefined()
      letGo()
      expect(Exit.isSuccess(yield* Fiber.await(pump))).toBe(true)
    }).pipe(Effect.scoped)
  )

  it.live("whose carrier breaks its word fails, and tells its owner", () =>
    Effect.gen(function* () {
      const outbox = new Outbox()
      const defect = new Error("a defect")
      const carrier: Carrier = {
        ...slow().carrier,
        write: () => {
          throw defect
        }
      }
      const pump = yield* Effect.forkScoped(run(outbox, carrier))
      outbox.urgent({ _tag: "Cancel", id: 1 })
      expect(yield* Fiber.await(pump)).toEqual(Exit.die(defect))
    }).pipe(Effect.scoped)
  )

  it.live("writes on for who is called back and sends again", () =>
    Effect.gen(function* () {
      const { letGo, outbox, writes } = yield* pumping
      const again = stream(1)
      let left = 3
      const send = (): void => {
        if (left-- > 0) outbox.message(again, Buffer.from("x"), send)
      }
      send()
      for (let round = 0; round < 4; round++) {
        yield* turns(3)
        letGo()
      }
      expect(writes.flat()).toEqual(["Message", "Message", "Message"])
    }).pipe(Effect.scoped)
  )
})
