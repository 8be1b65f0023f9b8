import { EventEmitter, once } from "node:events"
import { request } from "node:http"
import { type PlainEdge, serve } from "@curfew/http"
import type { Signals } from "@curfew/shutdown"
import { expect, test } from "vitest"

/** Signals that the test sends. */
const sent = () => {
  const emitter = new EventEmitter()
  const signals: Signals = {
    subscribe: (listener) => {
      emitter.on("signal", listener)
      return () => void emitter.off("signal", listener)
    }
  }
  return { signals, send: (name: string) => emitter.emit("signal", name) }
}

/** A server with a request under way that ends when it is let go, or cancelled. */
const busy = async (signals: Signals) => {
  let go = () => {}
  const begun = new EventEmitter()
  const starting = once(begun, "begun")
  const server = await serve(
    (_request, _response, exchange) =>
      exchange.run((signal) => {
        begun.emit("begun")
        return new Promise<void>((resolve, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason))
          go = () => {
            exchange.answer(200, "done")
            resolve()
          }
        })
      }),
    { drain: "1 minute", force: "1 minute", signals }
  )
  const asked = request({ port: server.port, agent: false }).end()
  const answered = once(asked, "response").then(([response]) => response.resume().statusCode)
  await starting
  return { server, answered, go: () => go() }
}

test("a signal that a terminal and a wrapper both deliver begins the drain, and does not end it", async () => {
  const { send, signals } = sent()
  const { answered, go, server } = await busy(signals)
  send("SIGINT")
  send("SIGINT")
  go()
  expect(await answered).toBe(200)
  expect((await server.ended).trigger).toEqual({ _tag: "Signal", signal: "SIGINT" })
})

test.each([
  ["shutdown", (server: PlainEdge) => server.shutdown()],
  ["another signal", undefined]
])("%s moves on at once", async (_, hurry) => {
  const { send, signals } = sent()
  const { answered, server } = await busy(signals)
  if (hurry === undefined) {
    send("SIGINT")
    send("SIGTERM")
  } else {
    hurry(server)
    hurry(server)
  }
  expect(await answered).toBe(503)
  await server.ended
})

test("disposing after a signal waits for the drain, and does not end it", async () => {
  const { send, signals } = sent()
  const { answered, go, server } = await busy(signals)
  send("SIGINT")
  const disposed = server[Symbol.asyncDispose]()
  go()
  expect(await answered).toBe(200)
  await disposed
})
