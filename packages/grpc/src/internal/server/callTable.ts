/**
 * The calls of one server: who is let in, who is there, and who waits for them to end.
 *
 * Invariants
 * 1. What `admit` let in leaves exactly once, and the counters of server, method and peer follow it.
 * 2. Of the counters that have fallen to zero one at most is kept, so peers that are gone leave nothing behind.
 * 3. Who waits for the last call to end is told in the turn in which it ends.
 */
import type { CancelReason } from "@curfew/reason"
import { moveOnAfter } from "@curfew/scope"
import { countUnsafe } from "@curfew/scope/Argument"
import * as Child from "@curfew/scope/Child"
import { status as Code } from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"
import type { CallCancelled, LiveCall, ServerCalls, ServerCallsOptions } from "../../ServerCalls.ts"
import type { LimitName, LimitStatus } from "../../ServerLimits.ts"
import { eventsLost } from "../../ServerMetrics.ts"
import { type ResolvedConcurrency, resolveConcurrency } from "./limits.ts"

/** A call in the table. */
export interface Entry extends LiveCall {
  readonly stop: (reason: CancelReason) => void
  /** Why it was cancelled, if it was. */
  readonly ended: CancelReason | undefined
  /** The table's own: where it stands, or a negative number. */
  place: number
}

/** A limit that stands against a call, and what its client is told. */
interface Refusal {
  readonly limit: LimitName
  readonly details: string
}

const refusal = (limit: LimitName, most: number): Refusal => ({
  limit,
  details: `Too many ${limit}: ${most} may run at a time`
})

/**
 * Counts by name. The last one that fell to zero stays until another does: a client with one call at a time would make
 * and drop its counter for each, and a map that grows and shrinks all the time leaves its old tables to the collector.
 */
class Counter {
  readonly #counts = new Map<string, { readonly key: string; count: number }>()
  #idle: string | undefined

  get(key: string): number {
    return this.#counts.get(key)?.count ?? 0
  }

  add(key: string, by: 1 | -1): void {
    const counter = this.#counts.get(key)
    if (counter === undefined) {
      this.#counts.set(key, { key, count: by })
      return
    }
    counter.count += by
    if (counter.count > 0 || this.#idle === key) return
    const idle = this.#idle
    this.#idle = key
    if (idle !== undefined && this.get(idle) === 0) this.#counts.delete(idle)
  }
}

/** Calls in no order, which come and go in constant time without the tables of a set. */
class Entries {
  readonly #entries: Array<Entry> = []

  get size(): number {
    return this.#entries.length
  }

  [Symbol.iterator](): Iterator<Entry> {
    return this.#entries[Symbol.iterator]()
  }

  add(entry: Entry): void {
    entry.place = this.#entries.length
    this.#entries.push(entry)
  }

  /** False when it is not there. */
  delete(entry: Entry): boolean {
    const { place } = entry
    if (place < 0) return false
    entry.place = -1
    const last = this.#entries.pop() as Entry
    if (last === entry) return true
    last.place = place
    this.#entries[place] = last
    return true
  }
}

export class CallTable implements ServerCalls {
  readonly options: ServerCallsOptions
  readonly entries = new Entries()
  refusing = false
  readonly #limits: ResolvedConcurrency
  readonly #context: Context.Context<never>
  readonly #events: PubSub.PubSub<CallCancelled>
  readonly #methods = new Counter()
  readonly #peers = { grpc: new Counter(), tunnel: new Counter() }
  readonly #waiters = new Set<() => void>()
  #ids = 0

  private constructor(
    options: ServerCallsOptions,
    context: Context.Context<never>,
    events: PubSub.PubSub<CallCancelled>
  ) {
    this.options = options
    this.#limits = resolveConcurrency(options.limits)
    this.#context = context
    this.#events = events
  }

  static make(options: ServerCallsOptions, context: Context.Context<never>): Effect.Effect<CallTable> {
    return Effect.suspend(() => {
      const buffer = countUnsafe("the eventBuffer of the calls", options.eventBuffer ?? 1_024, 1)
      return Effect.map(
        PubSub.dropping<CallCancelled>(buffer),
        (events) => new CallTable(options, context, events)
      )
    })
  }

  nextId(): string {
    this.#ids++
    return `grpc-${this.#ids}`
  }

  /** The limit that stands against it, or `undefined` when it is in. */
  admit(entry: Entry): Refusal | undefined {
    const { calls, perMethod, perPeer } = this.#limits
    const peers = this.#peersOf(entry)
    if (this.entries.size >= calls) return refusal("concurrent calls", calls)
    const ofMethod = this.#bound("perMethod", perMethod, entry.method)
    // The other way round: where a function of the program's gives NaN nothing is let in.
    if (!(this.#methods.get(entry.method) < ofMethod))
      return refusal("concurrent calls of the method", ofMethod)
    const ofPeer = this.#bound("perPeer", perPeer, entry.peer)
    if (!(peers.get(entry.peer) < ofPeer)) return refusal("concurrent calls of the peer", ofPeer)
    this.entries.add(entry)
    this.#methods.add(entry.method, 1)
    peers.add(entry.peer, 1)
    return undefined
  }

  #peersOf({ transport }: Entry): Counter {
    return transport === "tunnel" ? this.#peers.tunnel : this.#peers.grpc
  }

  #bound(name: "perMethod" | "perPeer", limit: (key: string) => number, key: string): number {
    try {
      return limit(key)
    } catch (error) {
      this.#threw(name, "the call is refused", error)
      return 0
    }
  }

  /** The status of a limit that was passed: what the first of these says. */
  statusOf(limit: LimitName, first?: LimitStatus | undefined): number {
    try {
      return first?.(limit) ?? this.options.limitStatus?.(limit) ?? Code.RESOURCE_EXHAUSTED
    } catch (error) {
      this.#threw("limitStatus", "the status is RESOURCE_EXHAUSTED", error)
      return Code.RESOURCE_EXHAUSTED
    }
  }

  /** Callbacks are asked in a turn of the transport's, where what they throw would end the process. */
  #threw(name: string, consequence: string, error: unknown): void {
    Child.startUnsafe(
      this.#context,
      Effect.logError(`${name} threw, so ${consequence}. Catch what it may throw.`, Cause.die(error))
    )
  }

  leave(entry: Entry): void {
    if (!this.entries.delete(entry)) return
    this.#methods.add(entry.method, -1)
    this.#peersOf(entry).add(entry.peer, -1)
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
