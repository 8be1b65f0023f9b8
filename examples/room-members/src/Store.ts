/**
 * The database: SQLite as Node brings it. It answers in the thread that asks, so each question here is a small one, and
 * whoever asks many pauses in between.
 *
 * Reads have a connection of their own: they see what was committed, never the half of a write.
 */
import { DatabaseSync } from "node:sqlite"
import { IllegalArgument } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"

export interface Room {
  readonly room: string
  readonly members: number
  readonly messages: number
}

export interface Store {
  readonly rooms: () => ReadonlyArray<Room>
  readonly room: (room: string) => Room | undefined
  readonly isMember: (room: string, user: string) => boolean
  /** The next members after one, in order. */
  readonly membersAfter: (room: string, user: string, most: number) => ReadonlyArray<string>
  readonly notifications: (message: number) => number
  /** Runs steps as one transaction, one at a time: committed when they succeed, rolled back else. */
  readonly write: <A, E>(steps: (writer: Writer) => Effect.Effect<A, E>) => Effect.Effect<A, E>
}

export interface Writer {
  readonly addMember: (room: string, user: string) => void
  readonly removeMember: (room: string, user: string) => void
  /** Writes into the room's own row how many members it has. */
  readonly recount: (room: string) => void
  readonly addMessage: (room: string, user: string, text: string) => number
  readonly notify: (message: number, users: ReadonlyArray<string>) => void
}

const schema = `
  pragma journal_mode = wal;
  create table if not exists rooms (
    room text primary key, members integer not null default 0, messages integer not null default 0
  ) strict;
  create table if not exists members (
    room text not null, user text not null, primary key (room, user)
  ) strict, without rowid;
  create table if not exists messages (
    id integer primary key, room text not null, user text not null, text text not null
  ) strict;
  create table if not exists notifications (
    message integer not null, user text not null, primary key (message, user)
  ) strict, without rowid;
`

export const openStore = (
  file: string,
  seed: Readonly<Record<string, ReadonlyArray<string>>>
): Effect.Effect<Store, never, Scope.Scope> =>
  Effect.gen(function* () {
    const writing = yield* open(file)
    writing.exec(schema)
    plant(writing, seed)
    const reading = yield* open(file)
    const one = yield* Semaphore.make(1)
    const writer = writerOf(writing)

    const rooms = reading.prepare("select room, members, messages from rooms order by room")
    const room = reading.prepare("select room, members, messages from rooms where room = ?")
    const member = reading.prepare("select 1 from members where room = ? and user = ?")
    const after = reading.prepare(
      "select user from members where room = ? and user > ? order by user limit ?"
    )
    const notified = reading.prepare("select count(*) as count from notifications where message = ?")
    return {
      rooms: () => rooms.all() as unknown as ReadonlyArray<Room>,
      room: (name) => room.get(name) as unknown as Room | undefined,
      isMember: (name, user) => member.get(name, user) !== undefined,
      membersAfter: (name, user, most) => after.all(name, user, most).map(({ user }) => user as string),
      notifications: (message) => notified.get(message)?.["count"] as number,
      write: (steps) =>
        one.withPermits(1)(
          Effect.acquireUseRelease(
            Effect.sync(() => writing.exec("begin immediate")),
            () => steps(writer),
            (_, exit) => Effect.sync(() => writing.exec(Exit.isSuccess(exit) ? "commit" : "rollback"))
          )
        )
    }
  })

const open = (file: string): Effect.Effect<DatabaseSync, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      // Two connections would be two databases.
      if (file === "" || file === ":memory:") {
        throw new IllegalArgument({ argument: "the database", value: file, expected: "a file" })
      }
      return new DatabaseSync(file)
    }),
    (database) => Effect.sync(() => database.close())
  )

const plant = (database: DatabaseSync, seed: Readonly<Record<string, ReadonlyArray<string>>>): void => {
  const room = database.prepare("insert or ignore into rooms (room, members) values (?, ?)")
  const member = database.prepare("insert or ignore into members (room, user) values (?, ?)")
  database.exec("begin immediate")
  for (const [name, users] of Object.entries(seed)) {
    if (room.run(name, users.length).changes === 0) continue
    for (const user of users) member.run(name, user)
  }
  database.exec("commit")
}

const writerOf = (database: DatabaseSync): Writer => {
  const join = database.prepare("insert or ignore into members (room, user) values (?, ?)")
  const leave = database.prepare("delete from members where room = ? and user = ?")
  const count = database.prepare(
    "update rooms set members = (select count(*) from members where room = ?1) where room = ?1"
  )
  const say = database.prepare("insert into messages (room, user, text) values (?, ?, ?)")
  const said = database.prepare("update rooms set messages = messages + 1 where room = ?")
  const tell = database.prepare("insert or ignore into notifications (message, user) values (?, ?)")
  return {
    addMember: (room, user) => void join.run(room, user),
    removeMember: (room, user) => void leave.run(room, user),
    recount: (room) => void count.run(room),
    addMessage: (room, user, text) => {
      said.run(room)
      return Number(say.run(room, user, text).lastInsertRowid)
    },
    notify: (message, users) => {
      for (const user of users) tell.run(message, user)
    }
  }
}
