/** Plain handlers have no fiber until something happens that needs one: each way in which that comes about. */
import { createServer } from "node:http"
import { EdgeMetrics, type EdgeRecord, type Exchange, NodeEdge, nodeEdge, serve } from "@curfew/http"
import { fromAbort } from "@curfew/reason"
import { cancellable } from "@curfew/request"
import { Instant, Owner, TaskScopeClosed } from "@curfew/scope"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import { describe, expect, test } from "vitest"
import { Deadlines, type Limited } from "../src/internal/deadlines.ts"
import { aborted, gate, get, listen, raw, Told } from "./support/client.ts"

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Whether the handler leaves the quick way in the turn in which its request came, or in a later one. */
const moments: ReadonlyArray<readonly [string, () => Promise<unknown> | undefined]> = [
  ["in its first turn", () => undefined],
  ["in a later turn", turn]
]

describe("a request that is over in the turn in which it came", () => {
  test("L37 has its record and is counted, and leaves nothing under way", async () => {
    const records = new Told<EdgeRecord>()
    await using server = await serve((_request, response) => response.end("ok"), {
      route: "/quick",
      onRecord: records.add
    })
    expect(await (await fetch(`http://127.0.0.1:${server.port}/quick?a=1`)).text()).toBe("ok")
    const [record] = (await records.until(1)) as [EdgeRecord]
    expect(record).toMatchObject({
      id: "http-1",
      name: "GET /quick",
      route: "GET /quick",
      path: "/quick",
      url: "/quick?a=1",
      status: 200,
      outcome: "answered",
      leases: 1,
      outlived: [],
      dropped: false,
      sent: { status: 200, whole: true }
    })
    expect(record.startedAt).toBeGreaterThan(0)
    expect(server.inFlight).toBe(0)
  })

  test("L37 is counted without a record, too, and is not in flight any more", async () => {
    const route = "GET /counted"
    await using server = await serve((_request, response) => response.end("ok"), { route: "/counted" })
    for (let i = 0; i < 3; i++) await (await fetch(`http://127.0.0.1:${server.port}/`)).text()
    expect(server.inFlight).toBe(0)
    const value = (metric: Metric.Metric<number, unknown>, attributes: Record<string, string>): unknown =>
      Effect.runSync(
        Metric.value(Metric.withAttributes(metric, { route, transport: "http1", ...attributes }))
      )
    expect(value(EdgeMetrics.started, {})).toMatchObject({ count: 3 })
    expect(value(EdgeMetrics.ended, { outcome: "answered", status: "200" })).toMatchObject({ count: 3 })
    expect(value(EdgeMetrics.inFlight, {})).toMatchObject({ value: 0 })
  })

  test("does not stand in the way of the next one where only one may be under way", async () => {
    await using server = await serve((_request, response) => response.end("ok"), { requests: 1 })
    const clients = await Promise.all([raw(server.port), raw(server.port), raw(server.port)])
    // Written together, they come in one turn of this process, one behind the other.
    for (const client of clients) client.send(get())
    for (const client of clients) expect(await client.until("\r\n\r\n")).toMatch(/^HTTP\/1.1 200 /)
  })
})

describe.each(moments)("a handler that asks for its scope %s", (_, moment) => {
  test("has all that a cancel scope has", async () => {
    const log: Array<string> = []
    await using server = await serve(async (_request, _response, exchange) => {
      await moment()
      exchange.defer(() => log.push("deferred"))
      const task = exchange.spawn("child", async () => "spawned")
      log.push(await exchange.run(async () => "run"), await task.join, String(exchange.signal.aborted))
      await exchange.checkpoint()
      exchange.answer(200, "ok")
    })
    expect(await (await fetch(`http://127.0.0.1:${server.port}/`)).text()).toBe("ok")
    expect(log.slice(0, 3)).toEqual(["run", "spawned", "false"])
    await server.shutdown()
    expect(log).toEqual(["run", "spawned", "false", "deferred"])
  })

  test("L39 is cancelled when its client leaves, and its record says so", async () => {
    const records = new Told<EdgeRecord>()
    const started = gate()
    const heard = gate<unknown>()
    await using server = await serve(
      cancellable(async (_request: unknown, _response: unknown, exchange: Exchange) => {
        await moment()
        started.open()
        await exchange.run(async (signal) => heard.open(await aborted(signal)))
      }),
      { onRecord: records.add }
    )
    const client = await raw(server.port)
    client.send(get())
    await started.promise
    client.socket.destroy()
    expect(fromAbort(await heard.promise)).toMatchObject({ _tag: "ClientGone" })
    expect((await records.until(1))[0]).toMatchObject({ status: 499, outcome: "gone" })
  })

  test("fails as one that does not: the failure cancels what it has spawned, and is answered 500", async () => {
    const cancelled = gate<unknown>()
    await using server = await serve(
      async (_request, _response, exchange) => {
        await moment()
        exchange.spawn(async (signal) => cancelled.open(await aborted(signal)))
        await turn()
        throw new Error("broken")
      },
      { mapError: (error) => ({ status: 418, message: String(error) }) }
    )
    const response = await fetch(`http://127.0.0.1:${server.port}/`)
    expect([response.status, await response.text()]).toEqual([418, "Error: broken\n"])
    await cancelled.promise
  })
})

describe("a handler that never asks for its scope", () => {
  test("L39 hears that its client has left, runs to its end, and its answer goes to nobody", async () => {
    const records = new Told<EdgeRecord>()
    const started = gate()
    const left = gate()
    await using server = await serve(
      async (_request, response, exchange) => {
        response.on("close", () => left.open())
        started.open()
        await left.promise
        await turn()
        expect(exchange.clientGone).toBe(true)
        expect(exchange.answer(200, "late")._tag).toBe("PeerGone")
      },
      { onRecord: records.add }
    )
    const client = await raw(server.port)
    client.send(get())
    await started.promise
    client.socket.destroy()
    expect((await records.until(1))[0]).toMatchObject({
      status: 499,
      outcome: "gone",
      dropped: true,
      leases: 1
    })
  })

  test.each([
    [
      "throws at once",
      (): never => {
        throw new Error("at once")
      }
    ],
    ["rejects", () => Promise.reject(new Error("later"))]
  ])("is answered 500 when it %s", async (_, handler) => {
    const records = new Told<EdgeRecord>()
    await using server = await serve(handler, { onRecord: records.add })
    expect((await fetch(`http://127.0.0.1:${server.port}/`)).status).toBe(500)
    expect((await records.until(1))[0]).toMatchObject({ status: 500, outcome: "failed" })
  })

  test("L48 L43 is answered 503 at the force of a shutdown; shielded at once, and it is waited for", async () => {
    const started = gate()
    const proceed = gate()
    const edge = nodeEdge({ drain: "1 minute", force: "10 seconds" })
    let ended = false
    const server = createServer(
      edge.handle(async () => {
        started.open()
        await proceed.promise
        ended = true
      })
    )
    edge.attach(server)
    const port = await listen(server)
    const answer = fetch(`http://127.0.0.1:${port}/`)
    await started.promise
    const report = edge.shutdown()
    void edge.shutdown()
    expect((await answer).status).toBe(503)
    expect(ended).toBe(false)
    proceed.open()
    const { items } = await report
    expect(ended).toBe(true)
    // The handler, and who waits for it.
    const tasks = items.filter(({ kind }) => kind === "task").map(({ fate, name }) => `${name}: ${fate}`)
    expect(new Set(tasks)).toEqual(new Set(["GET: cancelled"]))
  })

  test("L46 is answered 503 when its owner is cancelled, although that takes nothing any more", async () => {
    const started = gate()
    const proceed = gate()
    const program = Effect.gen(function* () {
      const owner = yield* Owner
      const edge = yield* NodeEdge.make()
      const server = createServer(
        edge.handle(async () => {
          started.open()
          await proceed.promise
        })
      )
      const port = yield* Effect.promise(() => listen(server))
      const answer = fetch(`http://127.0.0.1:${port}/`)
      yield* Effect.promise(() => started.promise)
      yield* owner.close
      const cancelled = yield* Effect.forkChild(owner.cancel(), { startImmediately: true })
      const { status } = yield* Effect.promise(() => answer)
      // Shielded: its client did not wait for it, and its owner does.
      expect(cancelled.pollUnsafe()).toBeUndefined()
      proceed.open()
      yield* Fiber.join(cancelled)
      server.closeAllConnections()
      yield* Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
      return status
    })
    const status = await Effect.runPromise(Effect.provide(program, Owner.layer()))
    expect(status).toBe(503)
  })

  test("keeps an exchange beyond its end, which then says so", async () => {
    let kept: Exchange | undefined
    await using server = await serve((_request, response, exchange) => {
      kept = exchange
      response.end("ok")
    })
    await (await fetch(`http://127.0.0.1:${server.port}/`)).text()
    expect(server.inFlight).toBe(0)
    const exchange = kept as Exchange
    expect(exchange.answer(200, "again")).toEqual({ _tag: "Answered" })
    expect([exchange.cancelled, exchange.clientGone]).toEqual([false, false])
    await turn()
    await expect(exchange.run(async () => 1)).rejects.toBeInstanceOf(TaskScopeClosed)
  })
})

describe("Deadlines", () => {
  const limited = (clock: Clock.Clock, limit: number, log: Array<string>, name: string): Limited => ({
    limit,
    at: Instant.nowOf(clock) + limit,
    expire: () => log.push(name),
    row: undefined
  })

  test("tells each at its end, in order, none that has left, and keeps no timer for nobody", async () => {
    const log: Array<string> = []
    const program = Effect.gen(function* () {
      const context = yield* Effect.context<never>()
      const clock = Context.get(context, Clock.Clock)
      const deadlines = new Deadlines(context)
      const first = limited(clock, 100, log, "first")
      deadlines.enter(first)
      yield* TestClock.adjust(40)
      deadlines.enter(limited(clock, 100, log, "second"))
      deadlines.enter(limited(clock, 10, log, "short"))
      const left = limited(clock, 100, log, "left")
      deadlines.enter(left)
      yield* TestClock.adjust(10)
      expect(log).toEqual(["short"])
      yield* TestClock.adjust(49)
      expect(log).toEqual(["short"])
      deadlines.leave(left)
      yield* TestClock.adjust(1)
      expect(log).toEqual(["short", "first"])
      yield* TestClock.adjust(39)
      expect(log).toEqual(["short", "first"])
      yield* TestClock.adjust(1)
      expect(log).toEqual(["short", "first", "second"])
      deadlines.leave(first)
      const alone = limited(clock, 5, log, "alone")
      deadlines.enter(alone)
      deadlines.leave(alone)
      yield* TestClock.adjust(1000)
      expect(log).toEqual(["short", "first", "second"])
    })
    await Effect.runPromise(Effect.provide(program, TestClock.layer()))
  })
})
