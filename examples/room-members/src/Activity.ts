/** What the page shows: requests that begin and end, jobs, and what was stopped halfway. */
import type { EdgeRecord } from "@curfew/http"
import { describe } from "@curfew/reason"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

export type Event =
  | { readonly kind: "begins"; readonly id: string; readonly path: string }
  | {
      readonly kind: "ends"
      readonly id: string
      readonly route: string
      readonly path: string
      readonly status: number
      /** Why it was cancelled, or that its client has gone. */
      readonly why: string | undefined
      readonly millis: number
      /** What still ran when the client had its answer, or had left. */
      readonly outlived: ReadonlyArray<string>
    }
  | { readonly kind: "note"; readonly what: string; readonly how: string }

/** How many events a new reader is told of the past, and half of what a slow one may fall behind. */
const remembered = 100

export class Activity {
  readonly #past: Array<Event> = []
  readonly #readers = new Set<Queue.Queue<Event>>()
  readonly #listeners: Array<(event: Event) => void> = []

  readonly tell = (event: Event): void => {
    this.#past.push(event)
    if (this.#past.length > remembered) this.#past.shift()
    for (const listener of this.#listeners) listener(event)
    for (const reader of this.#readers) Queue.offerUnsafe(reader, event)
  }

  /** For as long as the service runs. */
  readonly listen = (listener: (event: Event) => void): void => {
    this.#listeners.push(listener)
  }

  /** Waits until something is so that only an event can make so. */
  readonly until = (what: () => boolean): Effect.Effect<void> =>
    Stream.runDrain(Stream.takeUntil(this.events, what))

  readonly record = (record: EdgeRecord): Effect.Effect<void> =>
    Effect.sync(() => {
      const { endedAfter, id, outlived, path, reason, route, status } = record
      const why = reason === undefined ? undefined : describe(reason)
      const millis = Math.round(Duration.toMillis(endedAfter))
      this.tell({ kind: "ends", id, route, path, status, why, millis, outlived })
    })

  /** What was, and what comes. A reader that falls behind loses the oldest. */
  readonly events: Stream.Stream<Event> = Stream.unwrap(
    Effect.gen({ self: this }, function* () {
      const queue = yield* Queue.sliding<Event>(2 * remembered)
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          for (const event of this.#past) Queue.offerUnsafe(queue, event)
          this.#readers.add(queue)
        }),
        () => Effect.sync(() => this.#readers.delete(queue))
      )
      return Stream.fromQueue(queue)
    })
  )

  /** How many read the events now. */
  get readers(): number {
    return this.#readers.size
  }
}
