/** The server of the load over node:http and without an Effect program: the same routes, and the same counts. */

import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { type NodeEdge, nodeEdge } from "@curfew/http"
import type { Counts } from "./loadServer.ts"

let taken = 0
let started = 0
let released = 0
const records: Record<string, number> = {}

const after = (millis: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, millis))

const work =
  (answer: NodeEdge.PlainHandler): NodeEdge.PlainHandler =>
  async (request, response, exchange) => {
    const takes = Number(new URL(request.url ?? "/", "http://localhost").searchParams.get("ms"))
    started++
    exchange.defer(() => {
      released++
    })
    await exchange.run(() => after(takes))
    return answer(request, response, exchange)
  }

const edge = nodeEdge({
  onRecord: ({ status }) => {
    records[status] = (records[status] ?? 0) + 1
  }
})
const text = work((_request, _response, exchange) => exchange.answer(200, "x".repeat(100)))
const stream = work(async (_request, _response, exchange) => {
  for (const part of ["a", "b"]) {
    await exchange.run(() => after(1))
    await exchange.write(part.repeat(50))
  }
  exchange.finish()
})
const routes: Record<string, NodeEdge.Listener> = {
  "/read": edge.handle(text, { route: "/read", policy: "cancel" }),
  "/write": edge.handle(text, { route: "/write" }),
  "/stream": edge.handle(stream, { route: "/stream", kind: "stream", policy: "cancel" })
}

const server = createServer((request, response) => {
  taken++
  routes[(request.url ?? "/").split("?")[0] ?? "/"]?.(request, response)
})
edge.attach(server)
server.listen(0, "127.0.0.1", () => process.send?.({ port: (server.address() as AddressInfo).port }))

const cpuNow = (): number => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}
let counting = 0

process.on("message", () => {
  const asked = cpuNow()
  globalThis.gc?.()
  globalThis.gc?.()
  const heap = process.memoryUsage().heapUsed
  const cpu = asked - counting
  counting += cpuNow() - asked
  process.send?.({ taken, started, released, records, cpu, logs: [], unhandled: 0, heap } satisfies Counts)
})
process.on("disconnect", () => process.exit(0))
