/** A scenario in which clients leave, seen from the clients' side. What the server says of it stands in between. */

import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type { Event } from "./Activity.ts"
import type { SlowDisk } from "./SlowDisk.ts"
import type { startService } from "./service.ts"

export const playOnce = Effect.fnUntraced(function* (
  service: Effect.Success<ReturnType<typeof startService>>,
  disk: SlowDisk
) {
  const { activity, rooms, store, url } = service
  const seen: Array<Event> = []
  activity.listen((event) => void seen.push(event))
  const title = (text: string) => Effect.sync(() => console.log(`\n${text}`))
  const count = (matches: (event: Event) => boolean) => seen.filter(matches).length
  const began = (path: string, times = 1) =>
    activity.until(() => count((event) => event.kind === "begins" && event.path === path) === times)
  const gone = (event: Event) => event.kind === "ends" && event.status === 499
  const left = (path: string) =>
    activity.until(() => seen.some((event) => gone(event) && "path" in event && event.path === path))
  const noted = (how: string) => (event: Event) => event.kind === "note" && event.how.startsWith(how)

  const client = yield* HttpClient.HttpClient
  const get = (path: string) => Effect.flatMap(client.get(`${url}${path}`), ({ json }) => json)
  const post = (path: string, body: unknown) =>
    Effect.flatMap(
      client.execute(HttpClientRequest.bodyJsonUnsafe(HttpClientRequest.post(`${url}${path}`), body)),
      (answer) => Effect.map(answer.json, (json) => ({ status: answer.status, json }))
    )

  yield* title("Three clients ask for one summary. The first leaves; the others are answered, by one run.")
  yield* disk.hold
  const summary = "/rooms/lobby/summary"
  const first = yield* Effect.forkChild(get(summary))
  const others = yield* Effect.forEach([1, 2], () => Effect.forkChild(get(summary)))
  yield* began(summary, 3)
  yield* Fiber.interrupt(first)
  yield* left(summary)
  yield* disk.release
  const answers = yield* Effect.forEach(others, Fiber.join)

  yield* title("A client reads the members of the lobby and leaves in the middle.")
  yield* disk.hold
  const members = "/rooms/lobby/members"
  const reader = yield* Effect.forkChild(get(members))
  yield* began(members)
  yield* Fiber.interrupt(reader)
  yield* left(members)
  yield* disk.release

  yield* title("A client joins and leaves in the middle: it has joined all the same.")
  yield* disk.hold
  const join = "/rooms/lobby/join"
  const user = "@ada:here.example"
  const joiner = yield* Effect.forkChild(post(join, { user }))
  yield* began(join)
  yield* Fiber.interrupt(joiner)
  yield* activity.until(() => seen.some(noted("goes on")))
  yield* disk.release
  yield* left(join)
  const joined = store.isMember("lobby", user)

  yield* title("It says hello. The answer does not wait until everybody was told.")
  const said = yield* post("/rooms/lobby/messages", { user, text: "hello" })
  const answeredFirst = !seen.some(noted("ends"))
  yield* activity.until(() => seen.some(noted("ends")))

  yield* title("Two questions side by side, and the first failure as it is.")
  const nobody = yield* post("/rooms/lobby/messages", { user: "@eve:there.example", text: "hello" })
  const nowhere = yield* post("/rooms/attic/messages", { user, text: "hello" })
  console.log(`${JSON.stringify(nobody)}\n${JSON.stringify(nowhere)}\n`)

  const { message } = said.json as { readonly message: number }
  const result = {
    sharedAnswers: answers.length,
    sharedRuns: (yield* rooms.statistics).started,
    clientsThatLeft: count(gone),
    stoppedHalfway: count(noted("stopped")),
    joined,
    answeredBeforeAllWereTold: answeredFirst,
    notTold: (store.room("lobby")?.members ?? 0) - store.notifications(message),
    refused: `${nobody.status}, ${nowhere.status}`
  }
  const wanted: typeof result = {
    sharedAnswers: 2,
    sharedRuns: 1,
    clientsThatLeft: 3,
    stoppedHalfway: 1,
    joined: true,
    answeredBeforeAllWereTold: true,
    notTold: 0,
    refused: "403, 404"
  }
  const names = Object.keys(wanted) as ReadonlyArray<keyof typeof wanted>
  return { ok: names.every((name) => result[name] === wanted[name]), ...result }
}, Effect.provide(NodeHttpClient.layerUndici))
