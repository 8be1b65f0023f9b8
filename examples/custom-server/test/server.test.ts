import { once } from "node:events"
import { readdirSync, readFileSync } from "node:fs"
import { connect } from "node:net"
import { fileURLToPath } from "node:url"
import { guard } from "@curfew/guard"
import { cancellable, isActive } from "@curfew/request"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"
import type { Command } from "../src/server.ts"
import { clientOf, clientProcess } from "./support/client.ts"
import { start } from "./support/running.ts"

const gone = "the client has gone (tcp)"

/** A search without an end, and a store that waits for the test: each says when it is at work. */
const commands = () => {
  const begun = Deferred.makeUnsafe<void>()
  const gate = Deferred.makeUnsafe<void>()
  const said: Array<string> = []
  const search: Command = cancellable((what) =>
    Effect.gen(function* () {
      yield* guard((reason) => Effect.sync(() => said.push(`${what}: ${reason._tag}`)))
      yield* Deferred.succeed(begun, undefined)
      return yield* Effect.never
    })
  )
  const store: Command = (what) =>
    Effect.gen(function* () {
      yield* Deferred.succeed(begun, undefined)
      yield* Deferred.await(gate)
      said.push(`${what} stored, somebody waits: ${yield* isActive}`)
      return what
    })
  const echo: Command = (what) => Effect.succeed(what)
  return {
    said,
    begun: () => Effect.runPromise(Deferred.await(begun)),
    open: () => Effect.runSync(Deferred.succeed(gate, undefined)),
    table: { search, store, echo }
  }
}

describe("lines", () => {
  test("are answered one after the other, in their order", async () => {
    const { table } = commands()
    const { port } = await start(table)
    const client = await clientOf(port)
    client.say("echo one", "nonsense", "", "echo two  words\r")
    expect(await client.hears()).toBe("OK one")
    expect(await client.hears()).toBe("ERR write search or store or echo")
    expect(await client.hears()).toBe("ERR write search or store or echo")
    expect(await client.hears()).toBe("OK two  words")
  })

  test("may come in pieces", async () => {
    const { port } = await start(commands().table)
    const client = await clientOf(port)
    const bytes = Buffer.from("echo ä\n")
    for (const byte of bytes) await new Promise((sent) => client.socket.write(Uint8Array.of(byte), sent))
    expect(await client.hears()).toBe("OK ä")
  })

  test("that fail by a fault of the server's are answered", async () => {
    const { port } = await start({ break: () => Effect.die(new Error("broken")) })
    const client = await clientOf(port)
    client.say("break")
    expect(await client.hears()).toBe("ERR a fault of the server")
  })
})

describe("a client that leaves", () => {
  test.each([
    ["by closing", (socket: import("node:net").Socket) => socket.destroy()],
    ["by a reset", (socket: import("node:net").Socket) => socket.resetAndDestroy()],
    ["by the end of its input", (socket: import("node:net").Socket) => socket.end()]
  ])("%s, cancels a marked command, whose guard runs", async (_, leave) => {
    const { begun, said, table } = commands()
    const { logs, port } = await start(table)
    const client = await clientOf(port)
    client.say("search needle")
    await begun()
    leave(client.socket)
    await logs(`search needle: dropped, ${gone}`)
    expect(said).toEqual(["needle: ClientGone"])

    const next = await clientOf(port)
    next.say("echo still here")
    expect(await next.hears()).toBe("OK still here")
  })

  test("because its process is killed, is noticed too", async () => {
    const { begun, said, table } = commands()
    const { logs, port } = await start(table)
    const client = clientProcess(port, "search needle")
    await begun()
    client.kill("SIGKILL")
    await logs(`search needle: dropped, ${gone}`)
    expect(said).toEqual(["needle: ClientGone"])
  })

  test("leaves an unmarked command alone, which knows that nobody waits", async () => {
    const { begun, open, said, table } = commands()
    const { log, logs, port } = await start(table)
    const client = await clientOf(port)
    client.say("store apples")
    await begun()
    client.socket.destroy()
    const next = await clientOf(port)
    next.say("echo meanwhile")
    expect(await next.hears()).toBe("OK meanwhile")
    expect(log).toEqual(["echo meanwhile: OK meanwhile"])
    open()
    await logs(`store apples: dropped, ${gone}`)
    expect(said).toEqual(["apples stored, somebody waits: false"])
  })

  test("has the unmarked ones of its waiting lines done, and the marked ones not begun", async () => {
    const { begun, open, said, table } = commands()
    const { logs, port } = await start(table)
    const client = await clientOf(port)
    client.say("store apples", "search needle", "store pears")
    await begun()
    client.socket.destroy()
    await once(client.socket, "close")
    // A connection that came later is heard later: by its answer the first one's end has been heard.
    const next = await clientOf(port)
    next.say("echo meanwhile")
    await next.hears()
    open()
    await logs(`store pears: dropped, ${gone}`)
    expect(said).toEqual(["apples stored, somebody waits: false", "pears stored, somebody waits: false"])
  })
})

describe("bad input", () => {
  test.each([
    ["a line that is too long", ["x".repeat(1_025)], "ERR a line has at most 1024 characters"],
    ["a line without an end", ["y".repeat(1_000_000)], "ERR a line has at most 1024 characters"]
  ])("%s is answered, and the connection closed", async (_, lines, answer) => {
    const { port } = await start(commands().table)
    const client = await clientOf(port)
    client.socket.write(lines.join("\n"))
    expect(await client.hears()).toBe(answer)
    expect(await client.hears()).toBeUndefined()
  })

  test("more lines than may wait: those that wait are answered first", async () => {
    const { begun, open, table } = commands()
    const { port } = await start(table)
    const client = await clientOf(port)
    client.say("store first")
    await begun()
    client.say(...Array.from({ length: 1_000 }, (_, i) => `echo ${i}`))
    // Heard only when the flood has arrived: it came first.
    const next = await clientOf(port)
    next.say("echo next")
    expect(await next.hears()).toBe("OK next")
    open()
    expect(await client.hears()).toBe("OK first")
    let answered = 0
    let line = await client.hears()
    for (; line?.startsWith("OK"); line = await client.hears()) expect(line).toBe(`OK ${answered++}`)
    expect(answered).toBe(64)
    expect(line).toBe("ERR too many lines at once")
    expect(await client.hears()).toBeUndefined()
  })

  test("does not keep the server from noticing that the client has gone", async () => {
    const { begun, said, table } = commands()
    const { logs, port } = await start(table)
    const client = await clientOf(port)
    client.say("search needle", "z".repeat(1_000_000))
    await begun()
    client.socket.destroy()
    await logs(`search needle: dropped, ${gone}`)
    expect(said).toEqual(["needle: ClientGone"])
  })
})

describe("a shutdown", () => {
  test("lets a busy connection have its answer, and hangs up on idle ones at once", async () => {
    const { begun, open, table } = commands()
    const server = await start(table)
    const [busy, idle] = [await clientOf(server.port), await clientOf(server.port)]
    idle.say("echo there")
    expect(await idle.hears()).toBe("OK there")
    busy.say("store apples", "echo waits behind it")
    await begun()
    server.signal("SIGTERM")
    expect(await idle.hears()).toBeUndefined()
    const refused = connect(server.port, "127.0.0.1")
    const [error] = (await once(refused, "error")) as [NodeJS.ErrnoException]
    expect(error.code).toBe("ECONNREFUSED")
    open()
    expect(await busy.hears()).toBe("OK apples")
    expect(await busy.hears()).toBe("OK waits behind it")
    expect(await busy.hears()).toBeUndefined()
    const { report } = await server.ended
    expect(report.items.filter(({ fate }) => fate === "abandoned")).toEqual([])
    expect(report.items.filter(({ name }) => name === "store").map(({ fate }) => fate)).toEqual(["drained"])
  })

  test("cancels what does not end, and tells its client", async () => {
    const { begun, said, table } = commands()
    const server = await start(table)
    const client = await clientOf(server.port)
    client.say("search needle")
    await begun()
    server.signal("SIGTERM")
    server.signal("SIGINT")
    expect(await client.hears()).toBe("ERR the server is shutting down (force)")
    expect(await client.hears()).toBeUndefined()
    expect(said).toEqual(["needle: Shutdown"])
    expect(server.log).toEqual(["search needle: ERR the server is shutting down (force)"])
    const { report } = await server.ended
    expect(report.items.filter(({ name }) => name === "search").map(({ fate }) => fate)).toEqual([
      "cancelled"
    ])
  })

  test("does not wait for a client that never hangs up", async () => {
    const server = await start(commands().table)
    const socket = connect({ port: server.port, host: "127.0.0.1", allowHalfOpen: true })
    await once(socket, "connect")
    server.signal("SIGTERM")
    const { report } = await server.ended
    socket.destroy()
    expect(report.items.filter(({ fate }) => fate === "abandoned")).toEqual([])
  })
})

test("the source has fewer than 150 lines", () => {
  const src = fileURLToPath(new URL("../src/", import.meta.url))
  const lines = readdirSync(src).map((name) => readFileSync(`${src}${name}`, "utf8").split("\n").length - 1)
  expect(lines.reduce((sum, count) => sum + count, 0)).toBeLessThan(150)
})
