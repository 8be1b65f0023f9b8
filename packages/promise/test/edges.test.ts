import { createServer, type RequestListener } from "node:http"
import type { AddressInfo } from "node:net"
import express from "express"
import { describe, expect, test } from "vitest"
import {
  type CancelReason,
  cancelScope,
  clientGone,
  delayCancellation,
  failAfter,
  isCancelled
} from "../src/index.ts"
import { caught, gate, hangs, reasonOf, watchUnhandled } from "./support.ts"

watchUnhandled()

const serving = async (listener: RequestListener) => {
  const server = createServer(listener)
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/`,
    [Symbol.asyncDispose]: () => {
      server.closeAllConnections()
      return new Promise<void>((closed) => server.close(() => closed()))
    }
  }
}

describe("a bare fetch", () => {
  test("L7: is aborted by its limit, and by a scope, with the typed reason, and the server sees it go", async () => {
    const asked = [gate(), gate()]
    const gone = [gate<CancelReason>(), gate<CancelReason>()]
    let n = 0
    await using server = await serving((_, response) => {
      const i = n++
      const signal = clientGone(response)
      signal.addEventListener("abort", () => gone[i]?.open(signal.reason.reason))
      asked[i]?.open()
    })
    const limited = failAfter((signal) => fetch(server.url, { signal }), "200 millis", { name: "lookup" })
    expect(await caught(limited)).toMatchObject({ _tag: "DeadlineExceeded", scope: "lookup" })
    expect(await gone[0]?.promise).toEqual({ _tag: "ClientGone", transport: "http1" })
    await using scope = cancelScope()
    const error = caught(fetch(server.url, { signal: scope.signal }))
    await asked[1]?.promise
    scope.cancel("the tab was closed")
    expect(isCancelled(await error)).toBe(true)
    expect(await error).toMatchObject({ name: "AbortError", reason: { message: "the tab was closed" } })
    await gone[1]?.promise
  })
})

describe("an Express handler", () => {
  test("L40: its work is cancelled when the client leaves, and not when the answer has gone out", async () => {
    const started = gate()
    const ended = gate<CancelReason>()
    let finished: AbortSignal | undefined
    const app = express()
    app.get("/hangs", async (_, response) => {
      await using scope = cancelScope({ signal: clientGone(response), deadline: "1 minute" })
      started.open()
      ended.open(await reasonOf(scope.run(hangs)))
    })
    app.get("/answers", async (_, response) => {
      finished = clientGone(response)
      response.send(await failAfter(async () => "hello", "1 minute", { signal: finished }))
    })
    await using server = await serving(app)
    const client = new AbortController()
    const left = caught(fetch(`${server.url}hangs`, { signal: client.signal }))
    await started.promise
    client.abort()
    expect(await ended.promise).toEqual({ _tag: "ClientGone", transport: "http1" })
    await left
    expect(await (await fetch(`${server.url}answers`)).text()).toBe("hello")
    await server[Symbol.asyncDispose]()
    expect(finished?.aborted).toBe(false)
  })

  test("a client that has left already is gone at once", () => {
    const response = { writableFinished: false, closed: true, once: () => {}, req: { httpVersionMajor: 2 } }
    expect(clientGone(response).reason.reason).toEqual({ _tag: "ClientGone", transport: "http2" })
    expect(clientGone({ ...response, writableFinished: true }).aborted).toBe(false)
  })
})

describe("a queue worker", () => {
  test("stops between jobs, and the job in hand is not torn", async () => {
    const stop = new AbortController()
    const jobs = ["a", "b", "c"]
    const done: Array<string> = []
    const inHand = gate()
    const finish = gate()
    const handle = async (job: string) => {
      if (job === "b") {
        inHand.open()
        await finish.promise
      }
      done.push(job)
    }
    const worker = async () => {
      await using scope = cancelScope({ signal: stop.signal, name: "worker" })
      for (const job of jobs) {
        await delayCancellation(() => handle(job), { signal: scope.signal })
      }
    }
    const working = reasonOf(worker())
    await inHand.promise
    stop.abort("SIGTERM")
    finish.open()
    expect(await working).toEqual({ _tag: "Requested", message: "SIGTERM" })
    expect(done).toEqual(["a", "b"])
  })
})
