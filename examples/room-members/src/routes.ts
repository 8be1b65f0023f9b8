/** The routes, and who of them may be stopped: what is not marked runs to its end, whoever leaves. */
import { readFileSync } from "node:fs"
import { cancellable } from "@curfew/request"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Activity } from "./Activity.ts"
import { BadBody } from "./problems.ts"
import type { Rooms } from "./Rooms.ts"

const page = readFileSync(new URL("page.html", import.meta.url), "utf8")

const Name = Schema.String.check(Schema.isPattern(/^@[a-z0-9._-]{1,60}:[a-z0-9.-]{1,60}$/))
const Joining = Schema.Struct({ user: Name })
const Message = Schema.Struct({ user: Name, text: Schema.NonEmptyString.check(Schema.isMaxLength(2_000)) })

const bodyOf = <A, R>(schema: Schema.ConstraintDecoder<A, R>, expected: string) =>
  Effect.mapError(HttpServerRequest.schemaBodyJson(schema), () => new BadBody({ expected }))

const joining = bodyOf(Joining, '{ "user": "@ada:here.example" }')
const message = bodyOf(Message, '{ "user": "@ada:here.example", "text": "hello" }')

/** The room in the path. */
const room = Effect.map(HttpRouter.params, (params) => params["room"] as string)

const json = HttpServerResponse.jsonUnsafe

export const makeRoutes = (rooms: Rooms, activity: Activity) => {
  const reads = Layer.mergeAll(
    HttpRouter.add(
      "GET",
      "/rooms",
      Effect.map(rooms.list, (list) => json(list))
    ),
    // Marked: a read for somebody who has left is worth nothing.
    HttpRouter.add(
      "GET",
      "/rooms/:room/members",
      cancellable(Effect.map(Effect.flatMap(room, rooms.members), (members) => json(members)))
    ),
    // Marked: it only waits. What it waits for goes on as long as anybody does.
    HttpRouter.add(
      "GET",
      "/rooms/:room/summary",
      cancellable(Effect.map(Effect.flatMap(room, rooms.summary), (summary) => json(summary)))
    )
  )

  // Not marked: a write is done, or it is not, and that is not for a lost connection to decide.
  const writes = Layer.mergeAll(
    HttpRouter.add(
      "POST",
      "/rooms/:room/join",
      Effect.gen(function* () {
        const { user } = yield* joining
        return json(yield* rooms.join(yield* room, user))
      })
    ),
    HttpRouter.add(
      "POST",
      "/rooms/:room/leave",
      Effect.gen(function* () {
        const { user } = yield* joining
        return json(yield* rooms.leave(yield* room, user))
      })
    ),
    HttpRouter.add(
      "POST",
      "/rooms/:room/messages",
      Effect.gen(function* () {
        const { text, user } = yield* message
        return json(yield* rooms.say(yield* room, user, text), { status: 201 })
      })
    )
  )

  // A stream ends with its reader, without a mark.
  const events = HttpServerResponse.stream(
    activity.events.pipe(
      Stream.map((event) => `data: ${JSON.stringify(event)}\n\n`),
      Stream.encodeText
    ),
    { contentType: "text/event-stream", headers: { "cache-control": "no-store" } }
  )

  return Layer.mergeAll(
    reads,
    writes,
    HttpRouter.add("GET", "/", HttpServerResponse.text(page, { contentType: "text/html; charset=utf-8" })),
    HttpRouter.add("GET", "/activity", events)
  )
}
