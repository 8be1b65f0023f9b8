/**
 * The calls of one server: who is let in, who is there, and who waits for them to end.
 *
 * Invariants
 * 1. What `admit` let in leaves exactly once, and the counters of server, method and peer follow it.
 * 2. A counter that falls to zero is dropped, so peers that are gone leave nothing behind.
 * 3. Who waits for the last call to end is told in the turn in which it ends.
 */
import type { CancelReason } from "@curfew/reason"
import { moveOnAfter } from "@curfew/scope"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"
import type { CallCancelled, LiveCall, ServerCalls, ServerCallsOptions } from "../ServerCalls.ts"
import type { LimitName } from "../ServerLimits.ts"
import { eventsLost } from "../ServerMetrics.ts"

/** A call in the table. */
export interface Entry extends LiveCall {
  readonly stop: (reason: CancelReason) => void
  /** Why it was cancelled, if it was. */
  readonly ended: CancelReason | undefined
}

class Counter {
  readonly #counts = new Map<string, number>()

  get(key: string): number {
    return this.#counts.get(key) ?? 0
  }

  add(key: string, by: 1 | -1): void {
    const count = this.get(key) + by
    if (count === 0) this.#counts.delete(key)
    else this.#counts.set(key, count)
  }
}

const bound = (
  limit: number | ((key: string) => number) | undefined,
  key: string,
  otherwise: number
): number => (typeof limit === "function" ? limit(key) : (limit ?? otherwise))

export class CallTable implements ServerCalls {
  readonly options: ServerCallsOptions
  readonly entries = new Set<Entry>()
  refusing = false
  readonly #context: Context.Context<never>
  readonly #events: PubSub.PubSub<CallCancelled>
  readonly #methods = new Counter()
  readonly #peers = new Counter()
  readonly #waiters = new Set<() => void>()
  #ids = 0

  private constructor(
    options: ServerCallsOptions,
    context: Context.Context<never>,
    events: PubSub.PubSub<CallCancelled>
  ) {
    this.options = options
    this.#context = context
    this.#events = events
  }

  static make(options: ServerCallsOptions, context: Context.Context<never>): Effect.Effect<CallTable> {
    return Effect.map(
      PubSub.dropping<CallCancelled>(options.eventBuffer ?? 1_024),
      (events) => new CallTable(options, context, events)
    )
  }

  nextId(): string {
    this.#ids++
    return `grpc-${this.#ids}`
  }

  /** The limit that stands against it, or `undefined` when it is in. */
  admit(entry: Entry): LimitName | undefined {
    const { limits } = this.options
    if (this.entries.size >= (limits?.calls ?? 10_000)) return "concurrent calls"
    if (this.#methods.get(entry.method) >= bound(limits?.perMethod, entry.method, 10_000)) {
      return "concurrent calls of the method"
    }
    if (this.#peers.get(peerOf(entry)) >= bound(limits?.perPeer, entry.peer, 1_000)) {
      return "concurrent calls of the peer"
    }
    this.entries.add(entry)
    this.#methods.add(entry.method, 1)
    this.#peers.add(peerOf(entry), 1)
    return undefined
  }

  leave(entry: Entry): void {
    if (!this.entries.delete(entry)) return
    this.#methods.add(entry.method, -1)
    this.#peers.add(peerOf(entry), -1)
    if (this.entries.size === 0) for (const waiter of [...this.#waiters]) waiter()
  }

  /** Gives what the observer threw: it has no say in what it observes, and the call logs it. */
  tell(event: CallCancelled): unknown {
    if (!PubSub.publishUnsafe(this.#events, event)) eventsLost.updateUnsafe(1, this.#context)
    try {
      this.options.onCancelled?.(event)
      return undefined
    } catch (error) {
      return error ?? new Error("The observer threw nothing.")
    }
  }

  readonly live = Effect.sync(() =>
    [...this.entries].map(({ id, method, peer, transport }): LiveCall => ({ id, method, peer, transport }))
  )

  readonly inFlight = Effect.sync(() => this.entries.size)

  get cancellations(): Stream.Stream<CallCancelled> {
    return Stream.fromPubSub(this.#events)
  }

  readonly refuse = Effect.sync(() => {
    this.refusing = true
  })

  readonly idle: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.entries.size === 0) return resume(Effect.void)
    const waiter = (): void => {
      this.#waiters.delete(waiter)
      resume(Effect.void)
    }
    this.#waiters.add(waiter)
    return Effect.sync(() => {
      this.#waiters.delete(waiter)
    })
  })

  readonly drain = (limit: Duration.Input = Duration.infinity): Effect.Effect<boolean> =>
    Effect.suspend(() =>
      this.entries.size === 0
        ? Effect.succeed(true)
        : Effect.map(moveOnAfter(limit)(this.idle), Option.isSome)
    )

  readonly cancel = (reason: CancelReason): Effect.Effect<void> =>
    Effect.sync(() => {
      for (const entry of [...this.entries]) entry.stop(reason)
    })
}

const peerOf = (entry: Entry): string => `${entry.transport} ${entry.peer}`
