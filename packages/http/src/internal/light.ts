/**
 * A request as most of them are: a plain handler that answers and ends, and a client that waits for it. It has no fiber, no
 * scope and no port of its own. What is the transport's is with those that extend it.
 *
 * Invariants
 * 1. Whatever else happens makes a `Call` of it first, once, with the handler that runs already, and is that call's from
 *    then on: its client leaves, its time is over, it is stopped, its handler fails, or asks for its scope.
 * 2. It stands in the table and has its place in the owner from its start to its record, which comes once: from here, or
 *    from the call that it became.
 * 3. Its handler runs in the turn in which the request came.
 * 4. A request that ends in the turn in which it came is not watched: what becomes of it is asked when the turn is over.
 *    One that outlives the turn is watched from then on, and has its limit. A record has the time of the very end, so
 *    where somebody is given it, all are watched from their start.
 */

import type { CancelScope } from "@curfew/promise"
import { scopeAround } from "@curfew/promise/scopeAround"
import { scopeHere } from "@curfew/promise/scopeHere"
import { CancelReason } from "@curfew/reason"
import { Instant, type TaskScope } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { type Deferred, deferred, type Ear, told } from "./bridge.ts"
import { Call, type Hooks, handedOver } from "./call.ts"
import type { Series } from "./counting.ts"
import type { Edge, Spec } from "./edge.ts"
import { quickRecord } from "./lightRecord.ts"
import { LightState } from "./lightState.ts"
import type { Port } from "./port.ts"
import type { Entry } from "./table.ts"
import { afterTurn, type Turned } from "./turn.ts"

/** What a call needs of its request: the watch begins once the handler stands behind it. */
export interface Promoted {
  readonly port: Port
  readonly hooks: Omit<Hooks, "done"> | undefined
  readonly look: () => void
}

export abstract class Light<Full extends CancelScope = CancelScope>
  extends LightState
  implements Ear, Entry, Turned
{
  before: Entry | undefined = undefined
  after: Entry | undefined = undefined
  entered = false
  /** The handler has ended. */
  protected settled = false
  #running: Deferred<unknown> | undefined
  #call: Call | undefined
  #full: Full | undefined
  #over = false
  #ended = false

  constructor(edge: Edge, spec: Spec, series: Series, place: TaskScope.Place, limit: number) {
    super(edge, spec, series, place, limit)
    place.holder = this
    edge.table.enter(this)
  }

  abstract readonly name: string | undefined
  /** Its client has left; the call is told so by its own watch, and there may be none yet. */
  abstract readonly gone: boolean
  /** The server stops: what answers from now on says so. */
  abstract stopping(): void
  /** The answer is out to its last byte. */
  protected abstract readonly complete: boolean
  protected abstract readonly status: number
  /** Calls the handler. */
  protected abstract handle(): unknown
  /** The handler's value, while somebody waits for it. */
  protected abstract give(value: unknown): void
  /** From here on `finished` and `closed` are called with what happens to the answer, maybe at once. */
  protected abstract listen(): void
  /** Hears of nothing any more but the end of the answer. */
  protected abstract deafen(): void
  /** Nothing of it is looked at any more. */
  protected abstract forget(): void
  protected abstract prepare(): Promoted
  /** What the handler is given once it has a scope; `ended`: the request has, and the scope is over. */
  protected abstract scoped(scope: CancelScope, port: Port, context: Context.Context<never>): Full

  get isCall(): boolean {
    return this.#call !== undefined
  }

  /** The scope, if it was needed. */
  get full(): Full | undefined {
    return this.#full
  }

  /** The scope, for it is needed. */
  get needed(): Full {
    if (this.#full === undefined) {
      if (this.#ended) this.#full = this.#afterwards()
      else this.promote()
    }
    if (this.#full !== undefined) return this.#full
    throw new Error(
      "The scope of the request was asked for deep inside other starts and opens in the next turn; await a promise first."
    )
  }

  /** For whoever keeps the scope beyond the request: one that is over. */
  #afterwards(): Full | undefined {
    const { context } = this.edge
    const { look, port } = this.prepare()
    look()
    const made = Child.startUnsafe(context, scopeHere({ name: this.name })).pollUnsafe()
    if (made?._tag !== "Success") return undefined
    const scope = made.value
    told(scope[Symbol.asyncDispose](), nobody)
    return this.scoped(scope, port, context as Context.Context<never>)
  }

  /** To be called once it is made. */
  run(): void {
    const { clock, options, records } = this.edge
    if (records) {
      this.startedAt = clock.currentTimeMillisUnsafe()
      this.#watch()
    } else afterTurn(this)
    if (options.onStart !== undefined) this.#tell("onStart", options.onStart, this.known)
    let given: unknown
    try {
      given = this.handle()
    } catch (error) {
      this.failed(error)
      return
    }
    told(given, this)
  }

  turned(): void {
    if (this.#call !== undefined || this.#ended) return
    if (this.settled && this.complete) this.#end()
    else this.#watch()
  }

  /** Somebody wants to see its fiber: an end has to account for each request by itself. */
  fill(): void {
    if (this.settled && this.complete) this.#end()
    else this.promote()
  }

  #watch(): void {
    this.begin()
    this.place.show()
    this.listen()
    if (this.#call === undefined && !this.#ended && this.limit !== Number.POSITIVE_INFINITY)
      this.edge.deadlines.enter(this)
  }

  fulfilled(value: unknown): void {
    if (this.#running !== undefined) {
      this.#running.resolve(value)
      return
    }
    this.settled = true
    if (this.#over) this.#end()
    else this.give(value)
  }

  failed(error: unknown): void {
    this.promote()
    this.#running?.reject(error)
  }

  /** The answer is out, if it is complete. */
  protected finished(): void {
    if (this.#call !== undefined || this.#over || !this.complete) return
    this.#over = true
    if (this.settled) this.#end()
  }

  /** Nothing more is sent. */
  protected closed(): void {
    if (this.#call !== undefined || this.#over) return
    if (this.complete) this.finished()
    else this.promote()
  }

  stop(reason: CancelReason): void {
    if (!this.#ended) this.promote().stop(reason)
  }

  expire(): void {
    this.expired = true
    const { clock } = this.edge
    const at = Math.round(clock.currentTimeMillisUnsafe() + (this.at - Instant.nowOf(clock)))
    const origin = this.origin
    this.promote().stop(CancelReason.Deadline({ at, origin, scope: this.method }))
  }

  get abandon(): Effect.Effect<void> {
    return Effect.suspend(() => (this.#ended ? Effect.void : this.promote().abandon))
  }

  /** Makes a call of it, with all that a call has. */
  promote(): Call {
    if (this.#call !== undefined) return this.#call
    const { edge, name } = this
    this.deafen()
    edge.deadlines.leave(this)
    if (edge.records) this.promotedAfter = Instant.nowOf(edge.clock) - this.began
    const running = deferred<unknown>()
    this.#running = running
    if (this.settled) running.resolve(handedOver)
    if (!this.begun) this.begin()
    const { hooks, look, port } = this.prepare()
    if (this.complete) port.peer.completeUnsafe()
    const handler = Effect.contextWith((context: Context.Context<never>) =>
      scopeAround(
        running.promise,
        (scope) => {
          this.#full = this.scoped(scope, port, context)
        },
        { name }
      )
    )
    const { options, policy } = this.spec
    const call = new Call(edge, { port, options, policy, handler, hooks, light: this })
    this.#call = call
    call.begin()
    // What has happened to its client reaches the call once its handler stands behind it.
    look()
    return call
  }

  #end(): void {
    const { edge } = this
    this.#ended = true
    this.deafen()
    this.forget()
    if (this.row !== undefined) edge.deadlines.leave(this)
    edge.table.leave(this)
    const { status } = this
    if (this.begun) this.series.answered(status, edge.context)
    else this.series.quick(status, edge.context)
    const { onRecord } = edge.options
    if (onRecord !== undefined) {
      const took = Instant.nowOf(edge.clock) - this.began
      this.#tell("onRecord", onRecord, quickRecord(this.known, this.startedAt, took, status))
    }
    this.place.leave()
  }

  /** Calls what the program gave, whatever that does. */
  #tell<A>(what: string, callback: (given: A) => void, given: A): void {
    try {
      callback(given)
    } catch (error) {
      Child.startUnsafe(
        this.edge.context,
        Effect.logError(`${what} threw. Catch what it may throw.`, Cause.die(error))
      )
    }
  }
}

const ignore = (): void => {}
const nobody: Ear = { fulfilled: ignore, failed: ignore }
