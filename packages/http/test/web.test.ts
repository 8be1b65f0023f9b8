/**
 * Web-standard handlers on a server of node: where it hands over node's request and response, and where it keeps them and
 * there is nothing but the signal. Each way to leave the quick path, at each point of an answer.
 */
import type { Server } from "node:http"
import { connect, createServer as createServer2, type Http2Server } from "node:http2"
import type { EdgeRecord, PlainEdge } from "@curfew/http"
import { fetchHandler } from "@curfew/http/Web"
import type { CancelScope } from "@curfew/promise"
import { fromAbort } from "@curfew/reason"
import { cancellable } from "@curfew/request"
import { createAdaptorServer } from "@hono/node-server"
import { describe, expect, test } from "vitest"
import { aborted, gate, get, listen, raw, recording, Told } from "./support/client.ts"

type Work = (request: Request, scope: CancelScope) => Response | Promise<Response>
type Options = Parameters<typeof fetchHandler>[2]

interface Serving {
  readonly edge: PlainEdge
  readonly records: Told<EdgeRecord>
  readonly port: number
  readonly url: string
}

const ways: ReadonlyArray<readonly [string, boolean]> = [
  ["that hands over node's objects", true],
  ["that keeps them", false]
]

describe.each(ways)("on a server %s", (_, handsOver) => {
  const served = async (
    work: Work,
    options: Options & { readonly edge?: Parameters<typeof recording>[0] } = {},
    use: (serving: Serving) => Promise<void>
  ): Promise<void> => {
    const { edge: given, ...rest } = options
    const { edge, records } = recording(given)
    await using _edge = edge
    const handle = fetchHandler(edge, work, rest)
    const server = createAdaptorServer({
      fetch: handsOver ? handle : (request: Request) => handle(request)
    }) as Server
    edge.attach(server)
    const port = await listen(server)
    await use({ edge, records, port, url: `http://127.0.0.1:${port}` })
  }

  test("an answer at once has its record, and is no call", () =>
    served(
      () => new Response("found", { headers: { "x-a": "b" } }),
      { route: "/x" },
      async ({ records, url }) => {
        const response = await fetch(`${url}/x?y=1`)
        expect([response.status, response.headers.get("x-a"), await response.text()]).toEqual([
          200,
          "b",
          "found"
        ])
        expect((await records.until(1))[0]).toMatchObject({
          route: "GET /x",
          url: "/x?y=1",
          status: 200,
          outcome: "answered",
          sent: { whole: true }
        })
      }
    ))

  test("a body of any size is the handler's to read", () =>
    served(
      async (request) => Response.json({ bytes: (await request.arrayBuffer()).byteLength }),
      {},
      async ({ url }) => {
        const response = await fetch(url, { method: "POST", body: "x".repeat(3 * 1024 * 1024) })
        expect(await response.json()).toEqual({ bytes: 3 * 1024 * 1024 })
      }
    ))

  test("L39 the scope of a marked handler is cancelled when its client leaves, and the record says 499", async () => {
    const started = gate()
    const heard = gate<unknown>()
    await served(
      cancellable(async (_request: Request, scope: CancelScope) => {
        const { signal } = scope
        started.open()
        heard.open(await aborted(signal))
        return new Response("never sent")
      }),
      {},
      async ({ port, records }) => {
        const client = await raw(port)
        client.send(get())
        await started.promise
        client.socket.destroy()
        expect(fromAbort(await heard.promise)).toMatchObject({ _tag: "ClientGone" })
        expect((await records.until(1))[0]).toMatchObject({ status: 499, outcome: "gone" })
      }
    )
  })

  test("L39 an unmarked one runs to its end, and its answer goes to nobody", async () => {
    const started = gate()
    const cancelled = gate<boolean>()
    await served(
      async ({ signal }, scope) => {
        const left = aborted(signal)
        started.open()
        await left
        cancelled.open(scope.cancelled)
        return new Response("late")
      },
      {},
      async ({ port, records }) => {
        const client = await raw(port)
        client.send(get())
        await started.promise
        client.socket.destroy()
        expect(await cancelled.promise).toBe(false)
        expect((await records.until(1))[0]).toMatchObject({ status: 499, outcome: "gone" })
      }
    )
  })

  test("L39 a client that leaves while a body streams ends the stream, and the record says 499", async () => {
    const streaming = gate()
    const cancelled = gate()
    await served(
      () =>
        new Response(
          new ReadableStream({
            start: (controller) => controller.enqueue(new TextEncoder().encode("first")),
            pull: () => streaming.open(),
            cancel: () => cancelled.open()
          })
        ),
      {},
      async ({ port, records }) => {
        const client = await raw(port)
        client.send(get())
        await client.until("first")
        await streaming.promise
        client.socket.destroy()
        await cancelled.promise
        expect((await records.until(1))[0]).toMatchObject({ status: 499, outcome: "gone" })
      }
    )
  })

  test("a streamed body is part of its request: it is under way until the last byte", async () => {
    let controller!: ReadableStreamDefaultController<Uint8Array>
    await served(
      () =>
        new Response(
          new ReadableStream<Uint8Array>({
            start: (given) => {
              controller = given
              given.enqueue(new TextEncoder().encode("first "))
            }
          })
        ),
      {},
      async ({ edge, port, records }) => {
        const client = await raw(port)
        client.send(get())
        await client.until("first")
        expect([edge.inFlight, records.all.length]).toEqual([1, 0])
        controller.enqueue(new TextEncoder().encode("last"))
        controller.close()
        await client.until("last")
        expect((await records.until(1))[0]).toMatchObject({ status: 200, outcome: "answered" })
        expect(edge.inFlight).toBe(0)
      }
    )
  })

  test("L48 a deadline is answered 504, a failure 500 or what is made of it, a shutdown 503", async () => {
    const started = gate()
    await served(
      cancellable(async (request: Request, { signal }: CancelScope) => {
        if (request.url.endsWith("/fails")) throw new Error("broken")
        started.open()
        await aborted(signal)
        return new Response("never sent")
      }),
      { deadline: "20 millis", mapError: (error) => ({ status: 418, message: String(error) }) },
      async ({ edge, records, url }) => {
        expect((await fetch(url)).status).toBe(504)
        const failed = await fetch(`${url}/fails`)
        expect([failed.status, await failed.text()]).toEqual([418, "Error: broken\n"])
        expect((await records.until(2)).map(({ outcome, status }) => [status, outcome])).toEqual([
          [504, "cancelled"],
          [418, "failed"]
        ])
        await edge.shutdown()
      }
    )
  })

  test("L43 the force of a shutdown is answered 503", async () => {
    const started = gate()
    await served(
      cancellable(async (_request: Request, { signal }: CancelScope) => {
        started.open()
        await aborted(signal)
        return new Response("never sent")
      }),
      { edge: { drain: "1 minute" } },
      async ({ edge, url }) => {
        const answer = fetch(url)
        await started.promise
        const ended = edge.shutdown()
        void edge.shutdown()
        expect((await answer).status).toBe(503)
        await ended
      }
    )
  })

  test("has all that a cancel scope has, also in a later turn", async () => {
    const log: Array<string> = []
    await served(
      async (_request, scope) => {
        scope.defer(() => log.push("deferred"))
        await new Promise((resolve) => setImmediate(resolve))
        log.push(await scope.run(async () => "run"), await scope.spawn(async () => "spawned").join)
        return new Response("ok")
      },
      {},
      async ({ records, url }) => {
        expect(await (await fetch(url)).text()).toBe("ok")
        await records.until(1)
        expect(log).toEqual(["run", "spawned", "deferred"])
      }
    )
  })
})

describe("on a server that hands over node's objects", () => {
  test("L48 a deadline breaks off a body that streams, so that it does not look whole", async () => {
    const { edge, records } = recording({ deadline: "20 millis" })
    await using _edge = edge
    const handle = fetchHandler(
      edge,
      cancellable(
        (_request: Request) =>
          new Response(
            new ReadableStream({
              start: (controller) => controller.enqueue(new TextEncoder().encode("first"))
            })
          )
      )
    )
    const server = createAdaptorServer({ fetch: handle }) as Server
    edge.attach(server)
    const client = await raw(await listen(server))
    client.send(get())
    await client.until("first")
    await client.closed
    expect(client.text).not.toContain("\r\n0\r\n")
    expect((await records.until(1))[0]).toMatchObject({ outcome: "cancelled", reason: { _tag: "Deadline" } })
  })

  test("its promise ends when the edge has answered, although its handler does not", async () => {
    const { edge } = recording({ deadline: "10 millis" })
    await using _edge = edge
    const proceed = gate()
    const handle = fetchHandler(edge, async (_request: Request) => {
      await proceed.promise
      return new Response("late")
    })
    const given = new Told<Response>()
    const server = createAdaptorServer({
      fetch: (request: Request, environment: unknown) => {
        const answer = handle(request, environment)
        void answer.then(given.add)
        return answer
      }
    }) as Server
    edge.attach(server)
    const url = `http://127.0.0.1:${await listen(server)}`
    expect((await fetch(url)).status).toBe(504)
    await given.until(1)
    proceed.open()
  })

  test("a stream of HTTP/2 that its client resets is its client's leaving", async () => {
    const { edge, records } = recording()
    await using _edge = edge
    const started = gate()
    const handle = fetchHandler(
      edge,
      cancellable(async (_request: Request, { signal }: CancelScope) => {
        started.open()
        await aborted(signal)
        return new Response("never sent")
      })
    )
    const server = createAdaptorServer({ fetch: handle, createServer: createServer2 } as never) as Http2Server
    edge.attach(server)
    const session = connect(`http://127.0.0.1:${await listen(server)}`)
    session.on("error", () => {})
    const stream = session.request({ ":path": "/" })
    stream.on("error", () => {})
    await started.promise
    stream.close(8)
    expect((await records.until(1))[0]).toMatchObject({ status: 499, transport: "http2" })
    session.destroy()
  })
})

test("an environment that is somebody else's is left alone", async () => {
  const { edge, records } = recording()
  await using _edge = edge
  const handle = fetchHandler(edge, () => new Response("found"))
  for (const environment of [undefined, null, 1, {}, { incoming: {}, outgoing: {} }, { remoteAddr: "::1" }])
    expect(await (await handle(new Request("http://a/"), environment)).text()).toBe("found")
  expect((await records.until(6)).map(({ status }) => status)).toEqual([200, 200, 200, 200, 200, 200])
})
