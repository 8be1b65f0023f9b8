/** What can be done with rooms. Nothing here knows of HTTP; who may be stopped is said where the routes are. */
import { type ChildCancelled, gather } from "@curfew/gather"
import { guard } from "@curfew/guard"
import { describe } from "@curfew/reason"
import { onPeerGone } from "@curfew/request"
import { background, type Owner } from "@curfew/scope"
import { type SharedCancelled, SharedMap, type SharedStatistics } from "@curfew/singleflight"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { NotAMember, RoomNotFound } from "./problems.ts"
import type { Room, Store, Writer } from "./Store.ts"

interface Summary {
  readonly room: string
  readonly members: number
  /** How many members are from where. */
  readonly from: Readonly<Record<string, number>>
}

export interface Rooms {
  readonly list: Effect.Effect<ReadonlyArray<Room>>
  readonly members: (room: string) => Effect.Effect<ReadonlyArray<string>, RoomNotFound, Scope.Scope>
  readonly summary: (room: string) => Effect.Effect<Summary, RoomNotFound | SharedCancelled>
  readonly join: (room: string, user: string) => Effect.Effect<Room, RoomNotFound>
  readonly leave: (
    room: string,
    user: string
  ) => Effect.Effect<Room, RoomNotFound | NotAMember | ChildCancelled>
  readonly say: (
    room: string,
    user: string,
    text: string
  ) => Effect.Effect<{ readonly message: number }, RoomNotFound | NotAMember | ChildCancelled, Owner>
  /** How many wait for the summary of a room now. */
  readonly waiting: (room: string) => Effect.Effect<number>
  readonly statistics: Effect.Effect<SharedStatistics>
}

export interface RoomsOptions {
  /** What a slow disk would take for a page: run between two of them. */
  readonly pause: Effect.Effect<void>
  /** Is told what was stopped halfway, and how far it was, and when a background job begins and ends. */
  readonly note: (event: { readonly what: string; readonly how: string }) => void
}

const pageSize = 500

export const makeRooms = (store: Store, options: RoomsOptions): Effect.Effect<Rooms, never, Owner> =>
  Effect.gen(function* () {
    const { note, pause } = options

    const find = (room: string): Effect.Effect<Room, RoomNotFound> =>
      Effect.suspend(() => {
        const found = store.room(room)
        return found === undefined ? Effect.fail(new RoomNotFound({ room })) : Effect.succeed(found)
      })

    const member = (room: string, user: string): Effect.Effect<void, NotAMember> =>
      Effect.suspend(() =>
        store.isMember(room, user) ? Effect.void : Effect.fail(new NotAMember({ room, user }))
      )

    /** Both at the same time. What fails first comes out as it is: no room and no member are told apart. */
    const check = (room: string, user: string) =>
      gather({ room: find(room), member: Effect.andThen(find(room), member(room, user)) })

    /** Goes through all members page by page, and may be stopped at each pause. */
    const forEachPage = <E>(
      room: string,
      body: (users: ReadonlyArray<string>) => Effect.Effect<void, E>
    ): Effect.Effect<void, E> =>
      Effect.gen(function* () {
        let last: string | undefined = ""
        while (last !== undefined) {
          const users: ReadonlyArray<string> = store.membersAfter(room, last, pageSize)
          yield* body(users)
          last = users.length < pageSize ? undefined : users.at(-1)
          if (last !== undefined) yield* pause
        }
      })

    /** A guard that tells how far the work was. It has the data at hand: that is why it stands beside the work. */
    const tellWhenStopped = (what: string, progress: () => string) =>
      guard((reason) =>
        Effect.sync(() => note({ what, how: `stopped after ${progress()}: ${describe(reason)}` }))
      )

    const members = (room: string) =>
      Effect.gen(function* () {
        yield* find(room)
        const found: Array<string> = []
        yield* tellWhenStopped(`members of ${room}`, () => `${found.length} members`)
        yield* forEachPage(room, (users) => Effect.sync(() => void found.push(...users)))
        return found
      })

    // Shared: one run for all who wait. It has a Scope of its own, so its guard says why the run was stopped, which is
    // not why any of its waiters was.
    const summaries = yield* SharedMap.make(
      (room: string) =>
        Effect.gen(function* () {
          yield* find(room)
          const from: Record<string, number> = {}
          let members = 0
          yield* tellWhenStopped(`summary of ${room}`, () => `${members} members`)
          yield* forEachPage(room, (users) =>
            Effect.sync(() => {
              members += users.length
              for (const user of users) {
                const server = user.slice(user.indexOf(":") + 1)
                from[server] = (from[server] ?? 0) + 1
              }
            })
          )
          return { room, members, from }
        }),
      { name: "summary", context: "linked" }
    )

    /** Two steps that belong together, with a pause between them that is long enough for any client to leave. */
    const change = (room: string, step: (writer: Writer) => void) =>
      Effect.gen(function* () {
        const what = `the change of ${room}`
        yield* onPeerGone((reason) => Effect.sync(() => note({ what, how: `goes on: ${describe(reason)}` })))
        yield* store.write((writer) =>
          Effect.gen(function* () {
            step(writer)
            yield* pause
            writer.recount(room)
          })
        )
        return yield* find(room)
      }).pipe(Effect.scoped)

    /** Tells everybody in the room. Nobody waits for it: it has an owner, a name and a Scope of its own. */
    const notify = (room: string, message: number) =>
      Effect.gen(function* () {
        const what = `notifications of message ${message}`
        let told = 0
        note({ what, how: "begins" })
        yield* tellWhenStopped(what, () => `${told} members`)
        yield* forEachPage(room, (users) =>
          Effect.andThen(
            store.write((writer) => Effect.sync(() => writer.notify(message, users))),
            Effect.sync(() => {
              told += users.length
            })
          )
        )
        note({ what, how: `ends after ${told} members` })
      })

    return {
      list: Effect.sync(store.rooms),
      members,
      summary: summaries.get,
      waiting: summaries.observers,
      statistics: summaries.statistics,
      join: (room, user) =>
        Effect.andThen(
          find(room),
          change(room, (writer) => writer.addMember(room, user))
        ),
      leave: (room, user) =>
        Effect.andThen(
          check(room, user),
          change(room, (writer) => writer.removeMember(room, user))
        ),
      say: (room, user, text) =>
        Effect.gen(function* () {
          yield* check(room, user)
          const message = yield* store.write((writer) =>
            Effect.andThen(
              pause,
              Effect.sync(() => writer.addMessage(room, user, text))
            )
          )
          yield* background("push notifications", notify(room, message))
          return { message }
        })
    }
  })
