import { HttpEdge } from "@curfew/http"
import { backgroundActive, Owner } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { describe, expect, test } from "vitest"
import { openStore } from "../src/Store.ts"
import { ask, start } from "./support/running.ts"

const ada = "@ada:here.example"
const eve = "@eve:there.example"
const gone = "the client has gone (http1"

describe("a shared look-up", () => {
  test("goes on for those who stay when one of its waiters leaves", async () => {
    const { begun, endOf, notes, open, rooms, url } = await start()
    const path = "/rooms/lobby/summary"
    const clients = [ask(url + path), ask(url + path), ask(url + path)] as const
    await begun(path, 3)
    clients[1].leave()
    const { why } = await endOf(path, 499)
    expect(why).toContain(gone)
    expect(Effect.runSync(rooms.waiting("lobby"))).toBe(2)
    open()
    const summary = { room: "lobby", members: 1_200, from: { "here.example": 400, "there.example": 800 } }
    expect(await clients[0].answer).toEqual({ status: 200, body: summary })
    expect(await clients[2].answer).toEqual({ status: 200, body: summary })
    expect(Effect.runSync(rooms.statistics)).toMatchObject({ started: 1, joined: 2 })
    expect(notes()).toEqual([])
  })

  test("ends with the last of them, and says so", async () => {
    const { endOf, noted, open, pauses, url } = await start()
    const path = "/rooms/lobby/summary"
    const client = ask(url + path)
    await pauses(1)
    client.leave()
    await endOf(path, 499)
    await noted("summary of lobby stopped after 500 members: nobody waits for it any more")
    // And the next one begins anew.
    open()
    expect((await ask(url + path).answer).body).toMatchObject({ members: 1_200 })
  })
})

describe("a cancellable read", () => {
  test("stops where it is when its client leaves, and its guard knows how far it was", async () => {
    const { endOf, notes, open, pauses, url } = await start()
    const path = "/rooms/lobby/members"
    const client = ask(url + path)
    await pauses(1)
    client.leave()
    const { why } = await endOf(path, 499)
    expect(why).toContain(gone)
    expect(notes()).toEqual([`members of lobby stopped after 500 members: ${why}`])
    open()
    const { body, status } = await ask(url + path).answer
    expect(status).toBe(200)
    expect(body).toHaveLength(1_200)
  })
})

describe("a shielded write", () => {
  test("is done, both halves of it, when its client leaves in the middle", async () => {
    const { endOf, notes, open, pauses, store, until, url } = await start()
    const path = "/rooms/garden/join"
    const client = ask(url + path, { user: ada })
    await pauses(1)
    client.leave()
    await until(() => notes().some((note) => note.startsWith(`the change of garden goes on: ${gone}`)))
    // Nobody sees the half of it meanwhile.
    const { body } = await ask(`${url}/rooms`).answer
    expect(body).toContainEqual({ room: "garden", members: 3, messages: 0 })
    open()
    await endOf(path, 499)
    expect(store.isMember("garden", ada)).toBe(true)
    expect(store.room("garden")?.members).toBe(4)
  })

  test("waits for the one before it", async () => {
    const { open, pauses, url } = await start()
    const joining = ask(`${url}/rooms/garden/join`, { user: ada })
    await pauses(1)
    const leaving = ask(`${url}/rooms/garden/leave`, { user: eve })
    open()
    expect((await joining.answer).body).toEqual({ room: "garden", members: 4, messages: 0 })
    expect((await leaving.answer).body).toEqual({ room: "garden", members: 3, messages: 0 })
  })

  test("is taken back as a whole by a shutdown that does not wait for it", async () => {
    const { database, ended, pauses, signal, url } = await start()
    const client = ask(`${url}/rooms/garden/join`, { user: ada })
    await pauses(1)
    signal("SIGTERM")
    signal("SIGINT")
    const { report } = await ended
    expect(report.items.filter(({ fate }) => fate === "abandoned")).toEqual([])
    expect((await client.answer).status).toBe(503)
    const found = Effect.map(openStore(database, {}), (store) => [
      store.isMember("garden", ada),
      store.room("garden")
    ])
    expect(await Effect.runPromise(Effect.scoped(found))).toEqual([
      false,
      { room: "garden", members: 3, messages: 0 }
    ])
  })
})

describe("a background job", () => {
  const name = "push notifications"
  const running = Effect.map(
    Metric.value(Metric.withAttributes(backgroundActive, { name })),
    ({ value }) => value
  )

  test("outlives its request and its client, is counted by name, and a shutdown waits for it", async () => {
    const { ended, notes, open, pass, pauses, signal, store, url } = await start()
    const client = ask(`${url}/rooms/lobby/messages`, { user: "@u7:there.example", text: "hello" })
    await pauses(1)
    pass()
    expect(await client.answer).toEqual({ status: 201, body: { message: 1 } })
    client.leave()
    await pauses(2)
    expect(await Effect.runPromise(running)).toBe(1)
    signal("SIGTERM")
    expect(store.notifications(1)).toBe(500)
    open()
    const { report } = await ended
    expect(notes().at(-1)).toBe("notifications of message 1 ends after 1200 members")
    expect(report.items.filter(({ fate }) => fate !== "drained")).toEqual([])
    expect(report.items.map((item) => item.name)).toContain(name)
    expect(await Effect.runPromise(running)).toBe(0)
  })
})

const noRoom = 'There is no room "attic"; the rooms are listed under /rooms.'
const noMember = `${ada} is no member of "garden"; let them join first.`
const expected = 'Send JSON such as { "user": "@ada:here.example" }.'

test.each([
  ["/rooms/attic/members", undefined, 404, noRoom],
  ["/rooms/attic/summary", undefined, 404, noRoom],
  ["/rooms/attic/join", { user: ada }, 404, noRoom],
  ["/rooms/attic/messages", { user: ada, text: "hello" }, 404, noRoom],
  ["/rooms/garden/leave", { user: ada }, 403, noMember],
  ["/rooms/garden/messages", { user: ada, text: "hello" }, 403, noMember],
  ["/rooms/garden/join", { user: "ada" }, 400, expected],
  ["/rooms/garden/join", [], 400, expected]
])("what %s with %j fails with is its answer, unwrapped", async (path, body, status, problem) => {
  const { open, url } = await start()
  open()
  expect(await ask(url + path, body).answer).toEqual({ status, body: { problem } })
})

test("the activity ends with its reader", async () => {
  const { activity, begun, open, url } = await start()
  open()
  await ask(`${url}/rooms`).answer
  await begun("/rooms", 1)
  const leaving = new AbortController()
  const { body } = await fetch(`${url}/activity`, { signal: leaving.signal })
  const reader = body?.pipeThrough(new TextDecoderStream()).getReader()
  expect((await reader?.read())?.value).toMatch(
    /^data: {"kind":"begins","id":"http-\d+","path":"\/rooms"}\n\n/
  )
  expect(activity.readers).toBe(1)
  leaving.abort()
  // It asks between the turns of the event loop in which the server hears of it.
  while (activity.readers > 0) await ask(`${url}/rooms`).answer
})

test("only what was made for it is cancelled", async () => {
  const { app } = await start()
  const routes = await Effect.runPromise(Effect.scoped(Effect.provide(HttpEdge.routesOf(app), Owner.layer())))
  expect(routes.filter(({ cancellable }) => cancellable).map(({ name }) => name)).toEqual([
    "GET /rooms/:room/members",
    "GET /rooms/:room/summary"
  ])
})
