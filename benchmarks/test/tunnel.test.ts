import { once } from "node:events"
import { connect, createServer } from "node:net"
import { Metadata } from "@grpc/grpc-js"
import { describe, expect, test } from "vitest"
import { Child } from "../src/harness/child.ts"
import type { Driver } from "../src/tunnel/driver.ts"
import { closedLoop, openLoop, percentile, type Time } from "../src/tunnel/load.ts"
import { Pair } from "../src/tunnel/pair.ts"
import { inRounds, rowOf } from "../src/tunnel/rounds.ts"
import {
  checkHeaders,
  checkMessage,
  checkPayload,
  checkRequest,
  checkTotals,
  definition,
  encodeTotals,
  messagesOf,
  payload
} from "../src/tunnel/wire.ts"

const none = () => {
  throw new Error("This driver only makes small calls.")
}

const driverOf = (issue: Driver["issue"]): Driver => ({ issue, loop: none, download: none, upload: none })

/** Time that passes when nothing else is left to do. */
const ownTime = (): Time => {
  let now = 0
  const due: Array<{ readonly at: number; readonly then: () => void }> = []
  const pass = (): void => {
    const next = due.sort((one, other) => one.at - other.at).shift()
    if (next === undefined) return
    now = next.at
    next.then()
    setImmediate(pass)
  }
  setImmediate(pass)
  return {
    now: () => now,
    after: (millis, then) => {
      const entry = { at: now + millis, then }
      due.push(entry)
      return () => {
        const place = due.indexOf(entry)
        if (place >= 0) due.splice(place, 1)
      }
    }
  }
}

const open = { rate: 1_000, millis: 50, cap: 1_000, patience: 10_000 }

describe("an open loop", () => {
  test("makes every call that is due, and counts those that were answered", async () => {
    const numbers = new Set<number>()
    const result = await openLoop(
      driverOf((number, done) => {
        numbers.add(number)
        setImmediate(done)
      }),
      open,
      ownTime()
    )
    expect(result).toMatchObject({ offered: 50, completed: 50, dropped: 0 })
    expect(numbers.size).toBe(50)
    expect(result.p99).toBe(result.p99AtMost)
  })

  test("does not wait for answers, and counts the time from when a call was due", async () => {
    const waiting: Array<() => void> = []
    const result = await openLoop(
      driverOf((_, done) => {
        waiting.push(done)
        if (waiting.length === 50) for (const answer of waiting) answer()
      }),
      open,
      ownTime()
    )
    // The first was due 49 ms before the last, with which all were answered.
    expect([result.p50, result.p99]).toEqual([25, 49])
  })

  test("makes no more calls than may be outstanding, and takes the others for as slow as there was time", async () => {
    let outstanding = 0
    const time = ownTime()
    const result = await openLoop(
      driverOf((_, done) => {
        expect(++outstanding).toBeLessThanOrEqual(5)
        time.after(20, () => {
          outstanding--
          done()
        })
      }),
      { ...open, cap: 5 },
      time
    )
    // Five every twenty milliseconds.
    expect(result).toMatchObject({ completed: 15, dropped: 35, p99: 20 })
    expect(result.p99AtMost).toBe(open.millis + open.patience)
  })

  test("ends when its patience does, with what is outstanding as slow as it has been", async () => {
    const result = await openLoop(
      driverOf(() => undefined),
      { ...open, patience: 20 },
      ownTime()
    )
    expect(result).toMatchObject({ completed: 0, dropped: 0, p50: 46, p99: 70 })
  })

  test("fails with the first call that fails", async () => {
    const failing = driverOf((_, done) => done(new Error("a wrong answer")))
    await expect(openLoop(failing, open, ownTime())).rejects.toThrow("a wrong answer")
  })
})

test("a closed loop has one call for each caller, until the time is over", async () => {
  let [running, most, calls] = [0, 0, 0]
  const loop: Driver["loop"] = async (_, until) => {
    for (let number = until(); number !== undefined; number = until()) {
      most = Math.max(most, ++running)
      await new Promise((resolve) => setImmediate(resolve))
      running--
      calls++
    }
  }
  const result = await closedLoop({ ...driverOf(none), loop }, { callers: 3, millis: 20 })
  expect(most).toBe(3)
  expect(result.calls).toBe(calls)
})

describe("figures", () => {
  test("a percentile is the value that this share lies below", () => {
    const values = Array.from({ length: 100 }, (_, index) => 100 - index)
    expect([percentile(values, 0.5), percentile(values, 0.99)]).toEqual([51, 100])
  })

  test("rounds begin with another contestant each", async () => {
    const order: Array<string> = []
    const of = (name: string) => async () => order.push(name)
    const results = await inRounds("", 2, { a: of("a"), b: of("b") })
    expect(order).toEqual(["a", "b", "b", "a"])
    expect(results).toEqual({ a: [1, 4], b: [2, 3] })
  })

  const figures = { row: "", unit: "ms", target: 1, peerName: "", ours: [1, 2, 4], peer: [4, 4, 4] } as const

  test("more than 1 is better for ours, in times as in rates", () => {
    expect(rowOf({ ...figures, better: "lower" })).toMatchObject({ ratio: 2, range: [1, 4] })
    expect(rowOf({ ...figures, better: "higher" })).toMatchObject({ ratio: 0.5, range: [0.25, 1] })
  })

  test("nothing is no figure", () => {
    expect(() => rowOf({ ...figures, better: "lower", ours: [1, 0, 1] })).toThrow("above zero")
  })
})

describe("the checks refuse", () => {
  const sent = (entries: Record<string, string>): Metadata => {
    const metadata = new Metadata()
    for (const [key, value] of Object.entries(entries)) metadata.set(key, value)
    return metadata
  }
  const request = {
    "x-tenant": "acme-industries",
    "x-caller": "benchmark/1.0 (loopback)",
    "x-request-id": "req-1"
  }
  const headers = { "x-region": "eu-central-1", "x-version": "2026.11.1", "x-request-id": "req-1" }

  test("a request without one of its entries, or without its deadline", () => {
    expect(checkRequest(sent(request), Date.now() + 10_000)).toBe("req-1")
    for (const key of Object.keys(request))
      expect(() => checkRequest(sent({ ...request, [key]: "other" }), Date.now() + 10_000)).toThrow(
        "without its metadata"
      )
    for (const deadline of [Number.POSITIVE_INFINITY, Date.now() - 1])
      expect(() => checkRequest(sent(request), deadline)).toThrow("until its deadline")
  })

  test("an answer without one of its headers, or with those of another call", () => {
    checkHeaders(sent(headers), "req-1")
    expect(() => checkHeaders(undefined, "req-1")).toThrow("came with the headers")
    for (const key of Object.keys(headers))
      expect(() => checkHeaders(sent({ ...headers, [key]: "other" }), "req-1")).toThrow(
        "came with the headers"
      )
  })

  test("a payload of another call, one that is cut off, a message that is missing", () => {
    checkPayload(payload(100, 7), 100, 7)
    expect(() => checkPayload(payload(100, 8), 100, 7)).toThrow("the number 7")
    expect(() => checkPayload(payload(100, 7).subarray(1), 100, 7)).toThrow("99 bytes")
    const message = messagesOf(50)
    checkMessage(message(17), 50, 17)
    expect(() => checkMessage(message(18), 50, 17)).toThrow()
    checkTotals(encodeTotals(2, 100), 2, 100)
    expect(() => checkTotals(encodeTotals(2, 99), 2, 100)).toThrow("2 messages, 99 bytes")
  })

  test("what goes to Go is a protobuf message with one field of bytes", () => {
    const { requestDeserialize, requestSerialize } = definition.EchoWrapped
    const encoded = requestSerialize(payload(100, 1))
    expect([...encoded.subarray(0, 2)]).toEqual([10, 100])
    expect(requestDeserialize(encoded)).toEqual(payload(100, 1))
    expect(() => requestDeserialize(encoded.subarray(0, 50))).toThrow("no wrapped payload")
  })
})

test("a long link hands on what it is given, in order, after a round trip of 50 ms", async () => {
  const server = createServer((socket) => socket.pipe(socket)).listen(0, "127.0.0.1")
  await once(server, "listening")
  await using proxy = await Child.start(new URL("../src/tunnel/delayEnd.ts", import.meta.url))
  const { port } = server.address() as { readonly port: number }
  const socket = connect(await proxy.ask<number>("listen", port), "127.0.0.1")
  await once(socket, "connect")
  const sent = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 251))
  const received: Array<Buffer> = []
  const began = performance.now()
  let first = 0
  socket.on("data", (chunk: Buffer) => {
    first ||= performance.now() - began
    received.push(chunk)
  })
  socket.end(sent)
  await once(socket, "end")
  expect(Buffer.concat(received).equals(sent)).toBe(true)
  expect(first).toBeGreaterThanOrEqual(49)
  server.close()
})

describe.each(["direct", "stubs", "effect"] as const)("two processes, %s", (kind) => {
  test("make every kind of call, with right results", async () => {
    await using pair = await Pair.start(kind)
    expect((await pair.closed({ callers: 8, millis: 100 })).calls).toBeGreaterThan(0)
    expect((await pair.closed({ callers: 2, millis: 50, wrapped: true })).cpuPerCall).toBeGreaterThan(0)
    expect((await pair.open({ rate: 200, millis: 100, cap: 100, patience: 10_000 })).completed).toBe(20)
    for (const direction of ["download", "upload"] as const)
      expect(
        await pair.transfer({ direction, size: 100_000, count: 20, everyMillis: 0, millis: 0 })
      ).toBeGreaterThan(0)
    const small = { rate: 100, millis: 100, cap: 100, patience: 10_000 }
    const stream = { size: 1_000_000, count: 1_000, everyMillis: 20 }
    expect((await pair.beside({ small, stream })).p99).toBeGreaterThan(0)
    if (kind !== "effect") return
    expect((await pair.releases(5)).releasedP50).toBeGreaterThan(0)
  })
})
