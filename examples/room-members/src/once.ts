/** A scenario in which clients leave, seen from the clients' side. What the server says of it stands in between. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type { Event } from "./Activity.ts"
import type { startService } from "./service.ts"

export const playOnce = Effect.fnUntraced(function* (
  service: Effect.Success<ReturnType<typeof startService>>
) {
  const { activity, rooms, store, url } = service
  const seen: Array<Event> = []
  activity.listen((event) => void seen.push(event))
  const ended = () => seen.filter((event) => event.kind === "ends")
  const title = (text: string) => Effect.sync(() => console.log(`\n${text}`))
  const until = (what: () => boolean) => activity.until(what)

  const client = yield* HttpClient.HttpClient
  const get = (path: string) => Effect.flatMap(client.get(`${url}${path}`), ({ json }) => json)
  const post = (path: string, body: unknown) =>
    Effect.flatMap(
      client.execute(HttpClientRequest.bodyJsonUnsafe(HttpClientRequest.post(`${url}${path}`), body)),
      (answer) => Effect.map(answer.json, (json) => ({ status: answer.status, json }))
    )
  const start = <A, E, R>(request: Effect.Effect<A, E, R>) => Effect.forkChild(request)
  const began = (path: string, times = 1) =>
    until(() => seen.filter((event) => event.kind === "begins" && event.path === path).length === times)
  const left = (path: string) =>
    until(() => ended().some((event) => event.path === path && event.status === 499))

  yield* title(
    "Three clients ask for one summary. The first leaves; the other two have their answer, of one run."
  )
  const summary = "/rooms/lobby/summary"
  const [first, ...others] = yield* Effect.forEach([1, 2, 3], () => start(get(summary)))
  yield* began(summary, 3)
  if (first !== undefined) yield* Fiber.interrupt(first)
  yield* left(summary)
  const answers = yield* Effect.forEach(others, Fiber.join)

  yield* title("A client reads the members of the lobby and leaves in the middle.")
  const members = "/rooms/lobby/members"
  const reader = yield* start(get(members))
  yield* began(members)
  yield* Fiber.interrupt(reader)
  yield* left(members)

  yield* title("A client joins and leaves in the middle: it has joined all the same.")
  const join = "/rooms/lobby/join"
  const user = "@ada:here.example"
  const joiner = yield* start(post(join, { user }))
  yield* began(join)
  yield* Fiber.interrupt(joiner)
  yield* left(join)
  const joined = store.isMember("lobby", user)

  yield* title("It says hello. The answer does not wait until everybody was told.")
  const said = yield* post("/rooms/lobby/messages", { user, text: "hello" })
  const told = () => seen.some((event) => event.kind === "note" && event.how.startsWith("ends"))
  const answeredFirst = !told()
  yield* until(told)

  yield* title("Two questions side by side, and the first failure as it is.")
  const nobody = yield* post("/rooms/lobby/messages", { user: "@eve:there.example", text: "hello" })
  const nowhere = yield* post("/rooms/attic/messages", { user, text: "hello" })
  console.log(JSON.stringify([nobody, nowhere]))

  const room = store.room("lobby")
  const result = {
    sharedAnswers: answers.length,
    sharedRuns: (yield* rooms.statistics).started,
    clientsThatLeft: ended().filter(({ status }) => status === 499).length,
    stoppedHalfway: seen.filter((event) => event.kind === "note" && event.how.startsWith("stopped")).length,
    joined,
    members: room?.members,
    notified: store.notifications((said.json as { readonly message: number }).message),
    answeredFirst,
    refused: [nobody.status, nowhere.status]
  }
  console.log(`\n${JSON.stringify(result)}`)
  return result
}, Effect.provide(FetchHttpClient.layer))
