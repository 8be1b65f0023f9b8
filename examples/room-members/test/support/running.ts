/** The service in this process, with a disk that is as slow as the test wants it, and a signal to end it by. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Shutdown } from "@curfew/shutdown"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { onTestFinished } from "vitest"
import type { Event } from "../../src/Activity.ts"
import { startService } from "../../src/service.ts"

export const start = async (lobby = 1_200) => {
  const folder = mkdtempSync(join(tmpdir(), "room-members-test-"))
  const database = join(folder, "rooms.sqlite")
  const seen: Array<Event> = []
  let gate = Deferred.makeUnsafe<void>()
  let paused = 0
  let heard = () => {}
  let signal = (_name: string) => {}
  const changed = () => heard()
  const pause = Effect.suspend(() => {
    paused++
    changed()
    return Deferred.await(gate)
  })
  const started = Deferred.makeUnsafe<Effect.Success<ReturnType<typeof startService>>>()
  const main = Effect.gen(function* () {
    const service = yield* startService({ port: 0, database, lobby, pause })
    service.activity.listen((event) => {
      seen.push(event)
      changed()
    })
    yield* Deferred.succeed(started, service)
    return yield* Effect.never
  })
  const subscribe = (listener: typeof signal) => {
    signal = listener
    return () => {}
  }
  const ended = Effect.runPromise(
    Shutdown.run(Effect.scoped(main), { drain: "1 minute", force: "1 minute", signals: { subscribe } })
  )
  onTestFinished(async () => {
    signal("SIGTERM")
    signal("SIGQUIT")
    await ended
    rmSync(folder, { recursive: true })
  })
  const service = await Effect.runPromise(Deferred.await(started))
  /** Waits until something is so that an event or a pause makes so. */
  const until = async (what: () => boolean): Promise<void> => {
    while (!what()) {
      await new Promise<void>((resolve) => {
        heard = resolve
      })
    }
  }
  const notes = () => seen.flatMap((event) => (event.kind === "note" ? [`${event.what} ${event.how}`] : []))
  return {
    ...service,
    database,
    seen,
    ended,
    signal: (name: string) => signal(name),
    /** Lets the disk go on, from now on without pauses. */
    open: () => void Deferred.doneUnsafe(gate, Exit.void),
    /** Lets those go on that wait for the disk now. */
    pass: () => {
      const passed = gate
      gate = Deferred.makeUnsafe()
      Deferred.doneUnsafe(passed, Exit.void)
    },
    until,
    /** Waits until work has come to so many pauses, all in all. */
    pauses: (times: number) => until(() => paused >= times),
    begun: (path: string, times: number) =>
      until(() => seen.filter((event) => event.kind === "begins" && event.path === path).length === times),
    /** Waits for the end of a request. */
    endOf: async (path: string, status: number) => {
      const find = () =>
        seen.find((event) => event.kind === "ends" && event.path === path && event.status === status)
      await until(() => find() !== undefined)
      return find() as Extract<Event, { kind: "ends" }>
    },
    notes,
    noted: (note: string) => until(() => notes().includes(note))
  }
}

/** A client that can leave. */
export const ask = (url: string, body?: unknown) => {
  const leaving = new AbortController()
  const { signal } = leaving
  const init = body === undefined ? { signal } : { signal, method: "POST", body: JSON.stringify(body) }
  const answer = fetch(url, init).then(async (got) => {
    const text = await got.text()
    const isJson = got.headers.get("content-type")?.startsWith("application/json") === true
    return { status: got.status, body: isJson ? JSON.parse(text) : text }
  })
  answer.catch(() => {})
  return { answer, leave: () => leaving.abort() }
}
