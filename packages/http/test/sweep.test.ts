import { createServer } from "node:http"
import { type Exchange, NodeEdge } from "@curfew/http"
import { mechanismOf } from "@curfew/http/NodeEdge"
import { cancellable } from "@curfew/request"
import { Owner, TaskScope } from "@curfew/scope"
import { formatSweep, Probe } from "@curfew/testing"
import { type HttpSweepOptions, type Serve, sweepHttp } from "@curfew/testing/http"
import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"
import { get, listen, raw, recording } from "./support/client.ts"

/** A server of node:http with an edge, whose handler is an effect that answers by its response. */
const serving =
  (
    make: Effect.Effect<(response: NodeEdge.NodeResponse) => Effect.Effect<unknown>>,
    policy: "cancel" | "shield"
  ): Serve =>
  (watch) =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make({ name: "server" })
      const handler = yield* make
      const edge = mechanismOf(yield* Effect.provideService(NodeEdge.make(), Owner, owner))
      const spec = edge.specify(undefined, { policy })
      const server = createServer((request, response) =>
        edge.startNode(request, response, spec, () => ({ handler: watch(handler(response)) }))
      )
      yield* Effect.acquireRelease(
        Effect.callback<void>((resume) => {
          server.listen(0, "127.0.0.1", () => resume(Effect.void))
        }),
        () =>
          Effect.callback<void>((resume) => {
            server.close(() => resume(Effect.void))
            server.closeAllConnections()
          })
      )
      return server
    })

const swept = (serve: Serve, options?: HttpSweepOptions) => Effect.runPromise(sweepHttp(serve, options))

/** A lock that is held over two waits, and given back in any case. */
const sound = Effect.map(
  Probe.resource("lock"),
  (lock) => (response: NodeEdge.NodeResponse) =>
    Effect.acquireUseRelease(
      lock.acquire,
      () =>
        Effect.gen(function* () {
          yield* Effect.sleep("1 second")
          yield* Effect.yieldNow
          yield* Effect.sleep("1 second")
          response.end("done")
        }),
      () => lock.release
    )
)

describe("L39: a handler whose client leaves at every step", { timeout: 120_000 }, () => {
  test.each(["cancel", "shield"] as const)(
    "under %s: it ends, nothing is left, and the next request is answered",
    async (policy) => {
      const report = await swept(serving(sound, policy), { modes: ["reset", "abort"] })
      expect(formatSweep(report)).toContain("nothing broken")
      expect(report).toMatchObject({ ok: true, complete: true })
      expect(report.steps).toBeGreaterThan(10)
    }
  )

  test("what a cancellable handler leaves behind is found", async () => {
    const leaks = Effect.map(
      Probe.resource("lock"),
      (lock) => (response: NodeEdge.NodeResponse) =>
        Effect.gen(function* () {
          yield* lock.acquire
          yield* Effect.sleep("1 second")
          yield* lock.release
          response.end("done")
        })
    )
    const cancelled = await swept(serving(leaks, "cancel"), { modes: ["reset"], states: ["fresh"] })
    expect(cancelled.findings.map(({ kind }) => kind)).toContain("NotReleased")
    // The same handler unmarked is never cut short.
    const shielded = await swept(serving(leaks, "shield"), { modes: ["reset"], states: ["fresh"] })
    expect(shielded.findings).toEqual([])
  })

  test("a promise handler whose client leaves at each of its turns: 499 or the right answer, always one of them", async () => {
    const turns = 8
    const { edge, records } = recording()
    await using _edge = edge
    const log: Array<string> = []
    let leave: { readonly at: number; readonly now: () => void } | undefined
    const handler = cancellable(async (_request: unknown, _response: unknown, exchange: Exchange) => {
      const { at, now } = leave ?? { at: -1, now: () => {} }
      log.push("begun")
      exchange.defer(() => log.push("given back"))
      for (let turn = 0; turn < turns; turn++) {
        if (turn === at) now()
        await new Promise((resolve) => setImmediate(resolve))
        await exchange.checkpoint()
      }
      exchange.answer(200, "done")
    })
    const server = createServer(edge.handle(handler))
    edge.attach(server)
    const port = await listen(server)
    for (let at = 0; at < turns; at++) {
      const client = await raw(port)
      leave = { at, now: () => client.socket.resetAndDestroy() }
      client.send(get())
      const [record] = (await records.until(2 * at + 1)).slice(2 * at)
      expect([200, 499]).toContain(record?.status)
      leave = undefined
      const next = await raw(port)
      next.send(get("/", "connection: close\r\n"))
      expect(await next.until("done")).toMatch(/^HTTP\/1.1 200 /)
      await records.until(2 * at + 2)
    }
    const all = records.all.map(({ status }) => status)
    expect(all).toHaveLength(2 * turns)
    expect(all[0]).toBe(499)
    expect(log.filter((entry) => entry === "given back")).toHaveLength(2 * turns)
    expect(edge.inFlight).toBe(0)
  })
})
