import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import {
  catchCancelled,
  type Delivery,
  EdgeMetrics,
  type EdgeRecord,
  type EdgeRequest,
  type Exchange,
  fromNode,
  NodeEdge,
  serve
} from "@curfew/http"
import { cancelScope, checkpoint, isCancelled } from "@curfew/promise"
import { cancellable, onDisconnect, RequestContext } from "@curfew/request"
import { Owner } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import { Agent, request as undiciRequest } from "undici"
import { describe, expect, test } from "vitest"
import { aborted, gate, get, listen, raw, recording, Told } from "./support/client.ts"

const served = async (
  handler: NodeEdge.PlainHandler,
  options: Parameters<typeof recording>[0] = {},
  own: Parameters<NodeEdge.NodeEdge["handle"]>[1] = {}
) => {
  const { edge, records } = recording(options)
  const server = createServer(edge.handle(handler, own))
  edge.attach(server)
  const port = await listen(server)
  return { edge, records, server, port, url: `http://127.0.0.1:${port}` }
}

type Plain = (request: IncomingMessage, response: ServerResponse, exchange: Exchange) => unknown
const plain = (handler: Plain): Plain => handler

describe("L39: the policy of a handler, when its client leaves", () => {
  test("without a mark it runs to its end, can ask, and its answer is dropped", async () => {
    const started = gate()
    const told = gate<unknown>()
    const delivered = gate<Delivery>()
    const { edge, port, records } = await served(async (_request, _response, exchange) => {
      started.open()
      const reason = await aborted(exchange.clientSignal)
      told.open(reason)
      expect(exchange.clientGone).toBe(true)
      expect(exchange.signal.aborted).toBe(false)
      delivered.open(exchange.answer(200, "nobody reads this"))
    })
    await using _edge = edge
    const client = await raw(port)
    client.send(get())
    await started.promise
    client.socket.resetAndDestroy()
    expect(isCancelled(await told.promise)).toBe(true)
    expect(await delivered.promise).toMatchObject({ _tag: "PeerGone", reason: { _tag: "ClientGone" } })
    expect((await records.until(1))[0]).toMatchObject({ status: 499, reason: { _tag: "ClientGone" } })
  })

  test("marked cancellable its scope is cancelled, its guard runs, its clean-up is waited for", async () => {
    const started = gate()
    const log: Array<string> = []
    const { edge, port, records } = await served(
      cancellable(
        plain(async (_request, _response, exchange) => {
          exchange.onCancel(({ _tag }) => log.push(_tag))
          exchange.defer(async () => log.push("given back"))
          started.open()
          await exchange.run(aborted)
        })
      )
    )
    await using _edge = edge
    const client = await raw(port)
    client.send(get())
    await started.promise
    client.socket.resetAndDestroy()
    await records.until(1)
    expect(log).toEqual(["given back", "ClientGone"])
    expect(edge.inFlight).toBe(0)
  })

  test("with a grace it goes on for that long", async () => {
    const started = gate()
    const reasons: Array<string> = []
    const { edge, port, records } = await served(
      onDisconnect({ grace: "20 millis" })(
        plain(async (_request, _response, exchange) => {
          started.open()
          await aborted(exchange.clientSignal)
          reasons.push(`gone, cancelled: ${exchange.cancelled}`)
          await aborted(exchange.signal)
          reasons.push(exchange.reason?._tag ?? "none")
        })
      )
    )
    await using _edge = edge
    const client = await raw(port)
    client.send(get())
    await started.promise
    client.socket.resetAndDestroy()
    await records.until(1)
    expect(reasons).toEqual(["gone, cancelled: false", "ClientGone"])
  })

  test("L40: after an answer nothing is cancelled, and the record says 200", async () => {
    let told = 0
    const { edge, records, url } = await served(
      cancellable(
        plain((_request, response, exchange) => {
          exchange.signal.addEventListener("abort", () => told++)
          exchange.clientSignal.addEventListener("abort", () => told++)
          response.end("done")
        })
      )
    )
    await using _edge = edge
    const agent = new Agent()
    await (await undiciRequest(url, { dispatcher: agent })).body.text()
    await agent.destroy()
    expect((await records.until(1))[0]).toMatchObject({ status: 200, reason: undefined })
    expect(told).toBe(0)
  })
})

describe("L48: each end has its status", () => {
  const hangs = plain(async (_request, _response, exchange) => {
    await exchange.run(aborted)
  })

  test("a deadline of the server's: 504, with its reason", async () => {
    const { edge, records, url } = await served(hangs, { deadline: "10 millis" })
    await using _edge = edge
    const response = await fetch(url)
    expect([response.status, await response.text()]).toEqual([504, "The deadline of GET has passed.\n"])
    expect((await records.until(1))[0]).toMatchObject({
      status: 504,
      reason: { _tag: "Deadline", origin: "local" }
    })
  })

  test("a deadline of the client's: 504, no longer than its bound; off by default", async () => {
    const handler = plain((request, _response, exchange) =>
      request.url === "/hangs" ? exchange.run(aborted) : exchange.answer(200)
    )
    const clientDeadline = { header: "x-deadline", max: "20 millis" } as const
    const { edge, records, url } = await served(handler, { clientDeadline })
    await using _edge = edge
    const ask = (deadline: string, path = "/hangs") =>
      fetch(url + path, { headers: { "x-deadline": deadline } }).then(({ status }) => status)
    expect(await ask("5")).toBe(504)
    expect(await ask("10ms")).toBe(504)
    expect(await ask("3600s")).toBe(504)
    expect(await ask("0", "/answers")).toBe(504)
    expect(await ask("soon", "/answers")).toBe(400)
    expect(await ask("1000", "/answers")).toBe(200)
    for (const record of records.all.slice(0, 4)) {
      expect(record.reason).toMatchObject({ _tag: "Deadline", origin: "remote" })
    }
    const off = await served(handler)
    await using _off = off.edge
    const asked = await fetch(`${off.url}/answers`, { headers: { "x-deadline": "0" } })
    expect(asked.status).toBe(200)
  })

  test("a shielded handler at its deadline: the answer goes out at once, and the record waits for it", async () => {
    const proceed = gate()
    const late = gate<Delivery>()
    const { edge, records, url } = await served(
      async (_request, _response, exchange) => {
        await proceed.promise
        late.open(exchange.answer(200, "too late"))
      },
      { deadline: "10 millis" }
    )
    await using _edge = edge
    expect((await fetch(url)).status).toBe(504)
    expect(records.all).toEqual([])
    proceed.open()
    expect(await late.promise).toEqual({ _tag: "Answered" })
    expect((await records.until(1))[0]?.status).toBe(504)
  })

  test("a failure: 500 without its words, or what mapError says", async () => {
    const errors = new Told<unknown>()
    const fails = plain(({ url }) => {
      throw Object.assign(new Error("secret"), { url })
    })
    const { edge, url } = await served(fails, {
      mapError: (error) => {
        errors.add(error)
        return (error as { url: string }).url === "/known" ? { status: 409, message: "Taken." } : undefined
      }
    })
    await using _edge = edge
    const known = await fetch(`${url}/known`)
    expect([known.status, await known.text()]).toEqual([409, "Taken.\n"])
    const unknown = await fetch(`${url}/unknown`)
    expect([unknown.status, await unknown.text()]).toEqual([500, "The request could not be answered.\n"])
  })

  test("a failure in the middle of an answer breaks it off: half of it does not look whole", async () => {
    const { edge, url } = await served(async (_request, response) => {
      response.write("half")
      throw new Error("broken")
    })
    await using _edge = edge
    await expect(fetch(url).then((response) => response.text())).rejects.toThrow()
  })

  test("too many requests at once: 503, and nothing of it runs", async () => {
    const started = new Told<string>()
    const proceed = gate()
    const { edge, url } = await served(
      async (request, _response, exchange) => {
        started.add(request.url ?? "")
        await proceed.promise
        exchange.answer(200)
      },
      { requests: 1 }
    )
    await using _edge = edge
    const first = fetch(`${url}/first`)
    await started.until(1)
    expect((await fetch(`${url}/second`)).status).toBe(503)
    proceed.open()
    expect((await first).status).toBe(200)
    expect(started.all).toEqual(["/first"])
  })
})

describe("a handler in a loop", () => {
  test("that computes notices at its next checkpoint, while others are answered", async () => {
    const started = gate()
    const { edge, port, records, url } = await served(
      cancellable(
        plain(async (request, _response, exchange) => {
          if (request.url === "/quick") return exchange.answer(200, "quick")
          started.open()
          for (;;) {
            let sum = 0
            for (let i = 0; i < 10_000; i++) sum += i
            await checkpoint(exchange.signal)
            if (sum < 0) return undefined
          }
        })
      )
    )
    await using _edge = edge
    const client = await raw(port)
    client.send(get("/loop"))
    await started.promise
    const answers = await Promise.all([fetch(`${url}/quick`), fetch(`${url}/quick`)])
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    client.socket.resetAndDestroy()
    expect((await records.until(3))[2]).toMatchObject({ url: "/loop", status: 499 })
  })
})

describe("calls to somebody else are cancelled with their handler, for its reason", () => {
  test.each(["fetch", "undici"])("%s", async (client) => {
    const asked = gate()
    const left = gate()
    const upstream = createServer((_request, response) => {
      response.on("close", () => left.open())
      asked.open()
    })
    const upstreamPort = await listen(upstream)
    const errors: Array<unknown> = []
    const dispatcher = new Agent()
    const { edge, port, records } = await served(
      cancellable(
        plain(async (_request, _response, { signal }) => {
          const url = `http://127.0.0.1:${upstreamPort}`
          const call =
            client === "fetch" ? fetch(url, { signal }) : undiciRequest(url, { signal, dispatcher })
          await call.catch((error: unknown) => {
            errors.push(error)
            throw error
          })
        })
      )
    )
    await using _edge = edge
    const caller = await raw(port)
    caller.send(get())
    await asked.promise
    caller.socket.resetAndDestroy()
    await left.promise
    expect((await records.until(1))[0]?.status).toBe(499)
    expect(errors).toEqual([
      expect.objectContaining({ reason: expect.objectContaining({ _tag: "ClientGone" }) })
    ])
    await dispatcher.destroy()
    upstream.close()
  })
})

describe("real clients that leave", () => {
  const curl = (url: string) => spawn("curl", ["-sN", url], { stdio: "ignore" })
  const node = (url: string) => spawn(process.execPath, ["-e", `fetch("${url}")`], { stdio: "ignore" })
  const waiting = () => {
    const started = gate()
    return {
      started,
      handler: cancellable(
        plain(async (_request, _response, { signal }) => {
          started.open()
          await aborted(signal)
        })
      )
    }
  }

  test.each([
    ["curl, interrupted", curl, "SIGINT"],
    ["curl, killed", curl, "SIGKILL"],
    ["node, killed", node, "SIGKILL"]
  ] as const)("%s", async (_, start, signal) => {
    const { handler, started } = waiting()
    const { edge, records, url } = await served(handler)
    await using _edge = edge
    const child = start(url)
    await started.promise
    child.kill(signal)
    expect((await records.until(1))[0]?.status).toBe(499)
  })

  test("curl, with a time limit of its own", async () => {
    const { handler } = waiting()
    const { edge, records, url } = await served(handler)
    await using _edge = edge
    execFile("curl", ["-s", "--max-time", "0.2", url], () => {})
    expect((await records.until(1))[0]?.status).toBe(499)
  })

  test("undici, aborted; its next request is answered on a new connection", async () => {
    const { handler, started } = waiting()
    const { edge, records, url } = await served(
      cancellable(plain((q, s, e) => (q.url === "/next" ? e.answer(200, "next") : handler(q, s, e))))
    )
    await using _edge = edge
    const dispatcher = new Agent()
    const controller = new AbortController()
    const call = undiciRequest(url, { dispatcher, signal: controller.signal })
    await started.promise
    controller.abort()
    await expect(call).rejects.toThrow()
    expect((await records.until(1))[0]?.status).toBe(499)
    expect(await (await undiciRequest(`${url}/next`, { dispatcher })).body.text()).toBe("next")
    await dispatcher.destroy()
  })
})

describe("fromNode", () => {
  test("gives the block that is there a scope: cancelled, cleaned up, answered", async () => {
    const { edge, records } = recording({ deadline: "1 minute" })
    await using _edge = edge
    const started = gate()
    const log: Array<string> = []
    const server = createServer(async (request, response) => {
      await using exchange = fromNode(request, response, { edge, policy: "cancel" })
      exchange.onCancel(({ _tag }) => log.push(_tag))
      if (request.url === "/short") return void exchange.answer(200, "done")
      started.open()
      await exchange.run(aborted).catch(isCancelled)
    })
    edge.attach(server)
    const port = await listen(server)
    expect(await (await fetch(`http://127.0.0.1:${port}/short`)).text()).toBe("done")
    const client = await raw(port)
    client.send(get("/long"))
    await started.promise
    client.socket.resetAndDestroy()
    const all = await records.until(2)
    expect(all.map(({ status }) => status)).toEqual([200, 499])
    expect(log).toEqual(["ClientGone"])
  })

  test("answers a deadline by itself when the block was left", async () => {
    const { edge, records } = recording()
    await using _edge = edge
    const server = createServer(async (request, response) => {
      await using exchange = fromNode(request, response, { edge, policy: "cancel", deadline: "10 millis" })
      await exchange.run(aborted).catch(isCancelled)
    })
    edge.attach(server)
    const port = await listen(server)
    expect((await fetch(`http://127.0.0.1:${port}`)).status).toBe(504)
    expect((await records.until(1))[0]?.reason?._tag).toBe("Deadline")
  })

  test("what is refused at its start has an exchange that is over, with its name and its reason", async () => {
    const { edge, records } = recording({ bodyBytes: 10 })
    await using _edge = edge
    const seen = new Told<readonly [string, unknown]>()
    const server = createServer(async (request, response) => {
      await using exchange = fromNode(request, response, { edge })
      seen.add([exchange.id, exchange.reason])
    })
    edge.attach(server)
    const port = await listen(server)
    const body = "more than ten bytes"
    expect((await fetch(`http://127.0.0.1:${port}`, { method: "POST", body })).status).toBe(413)
    const reason = { _tag: "LimitExceeded", limit: "bodyBytes", detail: "a body may have 10 bytes" }
    expect((await seen.until(1))[0]).toEqual(["http-1", reason])
    expect((await records.until(1))[0]).toMatchObject({
      id: "http-1",
      status: 413,
      outcome: "cancelled",
      reason
    })
  })

  test("without an edge it belongs to one of the process", async () => {
    const server = createServer(async (request, response) => {
      await using exchange = fromNode(request, response)
      exchange.answer(200, exchange.id)
    })
    const port = await listen(server)
    expect(await (await fetch(`http://127.0.0.1:${port}`)).text()).toMatch(/^http-\d+$/)
    server.closeAllConnections()
    server.close()
    await once(server, "close")
  })
})

describe("catchCancelled", () => {
  const own = async (
    block: (exchange: Exchange) => unknown,
    options: Parameters<typeof recording>[0] = {},
    request: RequestInit = {}
  ) => {
    const { edge, records } = recording(options)
    await using _edge = edge
    const settled = new Told<unknown>()
    const log: Array<string> = []
    const listener = catchCancelled(async (request: IncomingMessage, response: ServerResponse) => {
      await using exchange = fromNode(request, response, { edge, policy: "cancel" })
      log.push("begun")
      exchange.onCancel(({ _tag }) => log.push(_tag))
      await block(exchange)
    })
    const server = createServer((request, response) => {
      Promise.resolve(listener(request, response)).then(settled.add, (error: unknown) => {
        response.writableEnded || response.writeHead(500).end()
        settled.add(error)
      })
    })
    edge.attach(server)
    const port = await listen(server)
    const { status } = await fetch(`http://127.0.0.1:${port}`, request)
    const [outcome] = await settled.until(1)
    return { status, outcome, log, record: (await records.until(1))[0] }
  }

  test("ends what a block of its request was left with, after its clean-up", async () => {
    const { log, outcome, record, status } = await own((exchange) => exchange.run(aborted), {
      deadline: "10 millis"
    })
    expect({ status, outcome, log }).toEqual({ status: 504, outcome: undefined, log: ["begun", "Deadline"] })
    expect(record).toMatchObject({ status: 504, outcome: "cancelled", reason: { _tag: "Deadline" } })
  })

  test("lets through what is not its own: a failure, and the Cancelled of somebody else's scope", async () => {
    const boom = new Error("boom")
    const failed = await own(() => Promise.reject(boom))
    expect([failed.status, failed.outcome]).toEqual([500, boom])
    const foreign = await own(() => {
      const other = cancelScope()
      other.cancel("another matter")
      return other.run(() => "never")
    })
    expect(foreign.status).toBe(500)
    expect(isCancelled(foreign.outcome)).toBe(true)
  })

  test("what is refused does not begin", async () => {
    const body = { method: "POST", body: "more than ten bytes" }
    const { log, outcome, record, status } = await own(() => "not reached", { bodyBytes: 10 }, body)
    expect({ status, outcome, log }).toEqual({ status: 413, outcome: undefined, log: [] })
    expect(record).toMatchObject({ status: 413, outcome: "cancelled" })
    expect(await own(() => "not reached", { requests: 0 })).toMatchObject({ status: 503, log: [] })
  })

  test("hears of a listener's thenable, too, which need be no Promise", async () => {
    const { edge } = recording({ bodyBytes: 0 })
    await using _edge = edge
    const settled = new Told<unknown>()
    const listener = catchCancelled((request: IncomingMessage, response: ServerResponse) => {
      const block = (async () => {
        await using _exchange = fromNode(request, response, { edge, policy: "cancel" })
      })()
      // biome-ignore lint/suspicious/noThenProperty: that is what a thenable has
      return { then: block.then.bind(block) }
    })
    const server = createServer((request, response) => {
      Promise.resolve(listener(request, response)).then(settled.add, settled.add)
    })
    edge.attach(server)
    const port = await listen(server)
    expect((await fetch(`http://127.0.0.1:${port}`, { method: "POST", body: "one" })).status).toBe(413)
    expect(await settled.until(1)).toEqual([undefined])
  })

  test("gives what a listener without promises gives, and throws what it throws", () => {
    const response = {} as ServerResponse
    const given = catchCancelled((_request: IncomingMessage, _response: ServerResponse, next: number) => next)
    expect(given({} as IncomingMessage, response, 7)).toBe(7)
    const throws = catchCancelled(() => {
      throw new Error("boom")
    })
    expect(() => throws({} as IncomingMessage, response)).toThrow("boom")
  })
})

describe("L37, L38: a request", () => {
  test("is told when it starts, and counted as it ends", async () => {
    const started: Array<EdgeRequest> = []
    const { edge, records, url } = await served(
      (_request, response) => response.end("fine"),
      { onStart: (request) => started.push(request) },
      { route: "/counted/:id" }
    )
    await using _edge = edge
    await (await fetch(`${url}/counted/7?all`)).text()
    const [record] = await records.until(1)
    const request = {
      id: "http-1",
      method: "GET",
      route: "GET /counted/:id",
      url: "/counted/7?all",
      path: "/counted/7",
      transport: "http1"
    }
    expect(started).toEqual([request])
    expect(record).toMatchObject({
      ...request,
      status: 200,
      outcome: "answered",
      reason: undefined,
      dropped: false,
      sent: { status: 200, whole: true }
    })
    const { route, transport } = request
    const counted = Effect.runSync(
      Effect.all([
        Metric.value(Metric.withAttributes(EdgeMetrics.started, { route, transport })),
        Metric.value(
          Metric.withAttributes(EdgeMetrics.ended, { route, transport, outcome: "answered", status: "200" })
        ),
        Metric.value(Metric.withAttributes(EdgeMetrics.inFlight, { route, transport }))
      ])
    )
    expect(counted).toMatchObject([{ count: 1 }, { count: 1 }, { value: 0 }])
  })

  test("is told once, when the last of its work has ended, with who outlived it", async () => {
    const proceed = gate()
    const { edge, records, url } = await served(
      async (_request, _response, exchange) => {
        exchange.answer(200)
        await proceed.promise
      },
      {},
      { route: "/orders/:id" }
    )
    await using _edge = edge
    expect((await fetch(`${url}/orders/7`)).status).toBe(200)
    expect(edge.inFlight).toBe(1)
    proceed.open()
    expect((await records.until(1))[0]).toMatchObject({
      id: "http-1",
      name: "GET /orders/:id",
      method: "GET",
      url: "/orders/7",
      status: 200
    })
    expect(edge.inFlight).toBe(0)
  })

  test.each(["die", "count"] as const)("L37 used after its end: %s", async (afterEnd) => {
    let kept: Option.Option<RequestContext.RequestContext> = Option.none()
    const records = new Told<EdgeRecord>()
    const program = Effect.gen(function* () {
      const edge = yield* NodeEdge.make({ afterEnd, onRecord: records.add })
      const keeps = (_: NodeEdge.NodeRequest, response: NodeEdge.NodeResponse) =>
        Effect.map(RequestContext.current, (it) => {
          kept = it
          response.end()
        })
      const server = createServer(edge.handleEffect(keeps, { route: `/kept/${afterEnd}` }))
      yield* edge.attach(server)
      const port = yield* Effect.promise(() => listen(server))
      yield* Effect.promise(() => fetch(`http://127.0.0.1:${port}/kept/${afterEnd}`))
      yield* Effect.promise(() => records.until(1))
      const late = yield* Effect.exit(Effect.scoped(Option.getOrThrow(kept).lease))
      expect(String(late)).toContain(afterEnd === "die" ? "Die" : "Fail")
      const uses = Metric.withAttributes(RequestContext.usedAfterEnd, { name: `GET /kept/${afterEnd}` })
      return yield* Metric.value(uses)
    })
    const { count } = await Effect.runPromise(Effect.provide(Effect.scoped(program), Owner.layer()))
    expect(count).toBe(afterEnd === "count" ? 1 : 0)
  })

  test("a record that throws is logged, and changes nothing", async () => {
    let calls = 0
    await using server = await serve((_request, response) => response.end("fine"), {
      onRecord: () => {
        calls++
        throw new Error("broken logger")
      }
    })
    for (const count of [1, 2]) {
      expect(await (await fetch(`http://127.0.0.1:${server.port}`)).text()).toBe("fine")
      while (calls < count) await new Promise((resolve) => setImmediate(resolve))
    }
  })

  test("writes after its client left, or after its end, neither throw out of the handler nor end the process", async () => {
    const started = gate()
    const { edge, port, records } = await served(async (_request, response, exchange) => {
      started.open()
      await aborted(exchange.clientSignal)
      response.write("one")
      response.end("two")
      response.write("three")
    })
    await using _edge = edge
    const client = await raw(port)
    client.send(get())
    await started.promise
    client.socket.resetAndDestroy()
    expect((await records.until(1))[0]?.status).toBe(499)
  })
})
