import { once } from "node:events"
import { createServer, type IncomingMessage } from "node:http"
import { connect, createServer as createServer2 } from "node:http2"
import { type EdgeRecord, type Exchange, NodeEdge, nodeEdge, type StopReport, serve } from "@curfew/http"
import { cancellable } from "@curfew/request"
import { CleanupBudget, Owner, TaskScope } from "@curfew/scope"
import type { Report } from "@curfew/shutdown"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"
import { aborted, gate, get, listen, raw, Told } from "./support/client.ts"

const serving = async (handler: NodeEdge.PlainHandler, options: Parameters<typeof nodeEdge>[0] = {}) => {
  const stopped: Array<StopReport> = []
  const server = await serve(handler, {
    host: "127.0.0.1",
    onStopped: (report) => stopped.push(report),
    ...options
  })
  return { server, stopped, url: `http://127.0.0.1:${server.port}` }
}

const fates = ({ items }: Report.Report): ReadonlyArray<string> =>
  items.filter(({ kind }) => kind === "task").map(({ fate, name }) => `${name}: ${fate}`)

describe("L43: the stages of a shutdown", () => {
  test("a connection that is idle is closed at once, and delays nothing", async () => {
    const { server } = await serving((_request, response) => response.end("ok"))
    const client = await raw(server.port)
    client.send(get())
    await client.until("ok")
    const report = await server.shutdown()
    await client.closed
    expect(report.phases.map(({ endedBy }) => endedBy)).toEqual(["done", "done", "done"])
  })

  test("a connection that never sent anything delays nothing either", async () => {
    const { server } = await serving((_request, response) => response.end("ok"), { drain: "1 minute" })
    const client = await raw(server.port)
    await server.shutdown()
    await client.closed
  })

  test("what runs is drained and told to close its connection; what comes meanwhile is refused", async () => {
    const started = gate()
    const proceed = gate()
    const { server, stopped, url } = await serving(async (_request, _response, exchange) => {
      started.open()
      await proceed.promise
      exchange.answer(200, "drained")
    })
    const client = await raw(server.port)
    client.send(get())
    await started.promise
    const report = server.shutdown()
    // Pipelined behind the request that runs, on a connection that is open.
    client.send(get("/late"))
    await expect(fetch(url)).rejects.toThrow()
    proceed.open()
    const text = await client.until("drained")
    expect(text).toMatch(/^HTTP\/1.1 200 [\s\S]*connection: close/i)
    await client.closed
    expect(fates(await report)).toContain("GET: drained")
    expect(stopped[0]).toMatchObject({ cancelled: [], abandoned: [] })
  })

  test("the servers of an edge are told of together, once", async () => {
    const started = gate()
    const proceed = gate()
    const stopped: Array<StopReport> = []
    const edge = nodeEdge({ onStopped: (report) => stopped.push(report) })
    const listener = edge.handle(async (_request, _response, exchange) => {
      started.open()
      await proceed.promise
      exchange.answer(200, "drained")
    })
    const servers = [createServer(listener), createServer(listener)]
    for (const server of servers) edge.attach(server)
    const [port] = await Promise.all(servers.map(listen))
    const client = await raw(port as number)
    client.send(get())
    await started.promise
    const ended = edge.shutdown()
    proceed.open()
    await client.until("drained")
    await ended
    expect(stopped).toEqual([{ drained: 1, cancelled: [], abandoned: [] }])
  })

  test("what does not drain is cancelled with 503, whatever its policy", async () => {
    const reasons: Array<string> = []
    const started = new Told<string>()
    const waits = async (request: IncomingMessage, _response: unknown, exchange: Exchange) => {
      exchange.onCancel((reason) => reasons.push(reason._tag))
      started.add(request.url ?? "")
      await exchange.run(aborted)
    }
    const { server, stopped, url } = await serving(waits, { drain: "10 millis", force: "10 seconds" })
    const answers = [fetch(url), fetch(url)]
    await started.until(2)
    const report = await server.shutdown()
    expect(await Promise.all(answers.map(async (answer) => (await answer).status))).toEqual([503, 503])
    expect(reasons).toEqual(["Shutdown", "Shutdown"])
    expect(stopped).toEqual([{ drained: 0, cancelled: ["GET /", "GET /"], abandoned: [] }])
    expect(report.phases.map(({ endedBy, phase }) => `${phase}: ${endedBy}`)).toContain("drain: limit")
  })

  test("a handler that hangs for ever, and its clean-up too, is left behind, by name", async () => {
    const started = gate()
    const { server, stopped, url } = await serving(
      cancellable(async (_request: unknown, _response: unknown, exchange: Exchange) => {
        exchange.defer(() => new Promise(() => {}))
        started.open()
        await new Promise(() => {})
      }) as NodeEdge.PlainHandler,
      { drain: "10 millis", force: "200 millis" }
    )
    const answer = fetch(url).then(
      ({ status }) => status,
      () => "broken off"
    )
    await started.promise
    const report = await server.shutdown()
    const abandoned = report.items
      .filter(({ fate }) => fate === "abandoned")
      .map(({ kind, name }) => `${kind} ${name}`)
    expect(abandoned).toContain("clean-up GET")
    expect(await answer).not.toBe(200)
    expect(stopped.length).toBeLessThanOrEqual(1)
  })

  test("asked again it does not wait for the drain", async () => {
    const started = gate()
    const { server, url } = await serving(
      async (_request, _response, exchange) => {
        started.open()
        await exchange.run(aborted)
      },
      { drain: "1 hour", force: "10 seconds" }
    )
    const answer = fetch(url)
    await started.promise
    const first = server.shutdown()
    const second = server.shutdown()
    expect((await answer).status).toBe(503)
    expect(await first).toBe(await second)
    expect((await first).phases.find(({ phase }) => phase === "drain")?.endedBy).toBe("signal")
  })

  test("its signals begin it", async () => {
    const listeners = new Set<(name: string) => void>()
    const { server } = await serving((_request, response) => response.end(), {
      signals: {
        subscribe: (listener) => {
          listeners.add(listener)
          return () => listeners.delete(listener)
        }
      }
    })
    for (const listener of listeners) listener("SIGTERM")
    expect((await server.ended).trigger).toEqual({ _tag: "Signal", signal: "SIGTERM" })
    expect(listeners.size).toBe(0)
  })

  test("an answer that streams is broken off by the force, and looks broken off", async () => {
    const { server, url } = await serving(
      async (_request, response, exchange) => {
        response.write("first")
        await exchange.run(aborted)
      },
      { drain: "10 millis" }
    )
    const response = await fetch(url)
    const broken = expect(response.text()).rejects.toThrow()
    await server.shutdown()
    await broken
  })

  test("over HTTP/2 its sessions end as well: idle at once, busy after their last stream", async () => {
    const started = gate()
    const proceed = gate()
    const edge = nodeEdge()
    const server = createServer2(
      edge.handle(async (_request, _response, exchange) => {
        started.open()
        await proceed.promise
        exchange.answer(200, "drained")
      })
    )
    edge.attach(server)
    const port = await listen(server)
    const [idle, busy] = [connect(`http://127.0.0.1:${port}`), connect(`http://127.0.0.1:${port}`)]
    await Promise.all([once(idle, "connect"), once(busy, "connect")])
    const stream = busy.request({ ":path": "/" })
    let text = ""
    stream.on("data", (chunk: Buffer) => {
      text += chunk.toString()
    })
    await started.promise
    const closed = [once(idle, "close"), once(busy, "close")]
    const report = edge.shutdown()
    await closed[0]
    proceed.open()
    await closed[1]
    expect(text).toBe("drained")
    expect(fates(await report)).toEqual(["GET: drained"])
  })

  test("at the end of a scope, in a program without a shutdown", async () => {
    const reports: Array<StopReport> = []
    const started = gate()
    const program = Effect.gen(function* () {
      const edge = yield* NodeEdge.make({ name: "api" })
      const server = createServer(
        edge.handle(async (_request, _response, exchange) => {
          started.open()
          await exchange.run(aborted)
        })
      )
      yield* edge.attach(server, { drain: "10 millis", onStopped: (report) => reports.push(report) })
      const port = yield* Effect.promise(() => listen(server))
      const answer = fetch(`http://127.0.0.1:${port}/slow`)
      yield* Effect.promise(() => started.promise)
      return answer
    })
    const wrapped = Effect.map(program, (answer) => ({ answer }))
    const { answer } = await Effect.runPromise(Effect.provide(Effect.scoped(wrapped), Owner.layer()))
    expect((await answer).status).toBe(503)
    expect(reports).toEqual([{ drained: 0, cancelled: ["GET /slow"], abandoned: [] }])
  })

  test("L37 what is left behind has its record all the same, with who outlived it", async () => {
    const started = gate()
    const records: Array<EdgeRecord> = []
    const stopped: Array<StopReport> = []
    const program = Effect.gen(function* () {
      const edge = yield* NodeEdge.make({ onRecord: (record) => records.push(record) })
      const hangs = Effect.suspend(() => {
        started.open()
        return Effect.uninterruptible(Effect.never)
      })
      const server = createServer(edge.handleEffect(() => hangs, { route: "/hangs" }))
      yield* edge.attach(server, { drain: 0, onStopped: (report) => stopped.push(report) })
      const port = yield* Effect.promise(() => listen(server))
      const answer = fetch(`http://127.0.0.1:${port}/hangs`)
      yield* Effect.promise(() => started.promise)
      return { answer }
    })
    const { answer } = await Effect.runPromise(
      Effect.scoped(program).pipe(
        Effect.provideService(CleanupBudget, Duration.millis(50)),
        // Its own end would wait for the handler as well.
        Effect.provideServiceEffect(Owner, TaskScope.make({ name: "owner" })),
        Effect.scoped,
        Effect.provideService(CleanupBudget, Duration.millis(50))
      )
    )
    expect((await answer).status).toBe(503)
    expect(stopped).toEqual([{ drained: 0, cancelled: [], abandoned: ["GET /hangs /hangs"] }])
    expect(records).toMatchObject([
      {
        status: 503,
        outcome: "abandoned",
        reason: { _tag: "Shutdown" },
        outlived: ["GET /hangs"],
        url: "/hangs"
      }
    ])
  })
})
