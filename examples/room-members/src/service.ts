/** The service as a whole: the database, the rooms, the policy around the routes, the server. */
import { type EdgeRequest, HttpEdge } from "@curfew/http"
import { EdgeServer } from "@curfew/http/EdgeServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import { Activity } from "./Activity.ts"
import { makeRooms } from "./Rooms.ts"
import { makeRoutes } from "./routes.ts"
import { openStore } from "./Store.ts"

export interface ServiceOptions {
  readonly port: number
  /** The file of the database. */
  readonly database: string
  /** How many members the lobby has to begin with. */
  readonly lobby: number
  /** What a slow disk would take for a page: run between two of them. */
  readonly pause: Effect.Effect<void>
}

/** Runs as long as its `Scope` is open. */
export const startService = Effect.fnUntraced(function* (options: ServiceOptions) {
  const activity = new Activity()
  const store = yield* openStore(options.database, {
    garden: ["@eve:there.example", "@ida:here.example", "@kai:there.example"],
    lobby: Array.from({ length: options.lobby }, (_, i) => `@u${i}:${i % 3 === 0 ? "here" : "there"}.example`)
  })
  const rooms = yield* makeRooms(store, {
    pause: options.pause,
    note: ({ how, what }) => activity.tell({ kind: "note", what, how })
  })
  const shown = ({ path }: EdgeRequest): boolean => path.startsWith("/rooms")
  const app = HttpEdge.edge({
    accessLog: false,
    onStart: (request) =>
      Effect.sync(() => {
        const { id, path } = request
        if (shown(request)) activity.tell({ kind: "begins", id, path })
      }),
    onRecord: (record) => (shown(record) ? activity.record(record) : Effect.void)
  })(makeRoutes(rooms, activity))
  const live = HttpRouter.serve(app, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(EdgeServer.layer({ port: options.port }))
  )
  const { address } = Context.get(yield* Layer.build(live), HttpServer.HttpServer)
  return { url: HttpServer.formatAddress(address), app, activity, rooms, store }
})
