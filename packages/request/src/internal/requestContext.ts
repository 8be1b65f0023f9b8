/**
 * The life of a request: its users, its end, and the one record of it.
 *
 * Invariants
 * 1. The record is made when the request is finished and nobody holds it any more, or nobody waits for them: once.
 * 2. A hold that was taken before that moment delays it, whether it was taken before or after `finish`.
 * 3. Each hold counts once, however often its release is run. One that was left behind by `abandon` counts no more.
 * 4. The receiver of the record runs masked, within the clean-up budget, in the fiber that ended last; what it fails
 *    with reaches `OnUnhandled` and nobody else.
 * 5. A request whose record nobody receives reads no clock, and costs one object beside its holds.
 */
import { keepUnsafe } from "@curfew/reason/CancelCell"
import { reportUnhandled } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import * as Instant from "@curfew/scope/Instant"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import { ContextFinished } from "../ContextFinished.ts"
import type { RequestContext, RequestOptions, RequestRecord } from "../RequestContext.ts"
import { strip } from "./caller.ts"

export const usedAfterEnd: Metric.Counter<number> = /* @__PURE__ */ Metric.counter(
  "curfew_request_used_after_end_total",
  { description: "Uses of a request context after its end.", incremental: true }
)

/** Who holds the request. */
export interface Holder {
  readonly name: string | undefined
}

/** What a request of a mechanism may be made with: its own end, and a record only where somebody receives one. */
export interface StateOptions extends Omit<RequestOptions, "onEnd"> {
  readonly onEnd?: RequestOptions["onEnd"] | undefined
  /** Told at the end, before the record is made, with who outlived it, if anybody did. */
  readonly onEnded?: ((outlived: ReadonlySet<string> | undefined) => void) | undefined
}

let keeps = false

export const makeRequest = (
  options: StateOptions,
  services: Context.Context<never>,
  clock: Clock.Clock
): RequestState => {
  if (!keeps) {
    keeps = true
    keepUnsafe(new RequestState({ id: "" }, Context.empty(), clock))
  }
  return new RequestState(options, services, clock)
}

export class RequestState implements RequestContext {
  readonly id: string
  readonly name: string | undefined
  readonly #options: StateOptions
  readonly #clock: Clock.Clock
  readonly #services: Context.Context<never>
  readonly #startedAt: number
  readonly #began: number
  /** Who holds the request now; most requests have one holder at a time. */
  #holder: Holder | undefined = undefined
  #others: Set<Holder> | undefined = undefined
  #finishedAfter: number | undefined = undefined
  #leases = 0
  #ended = false
  #outlived: Set<string> | undefined = undefined

  constructor(options: StateOptions, services: Context.Context<never>, clock: Clock.Clock) {
    this.id = options.id
    this.name = options.name
    this.#options = options
    this.#services = services
    this.#clock = clock
    const recorded = options.onEnd !== undefined
    this.#startedAt = recorded ? clock.currentTimeMillisUnsafe() : 0
    this.#began = recorded ? Instant.nowOf(clock) : 0
  }

  /** What a caller's work takes out of its context: a request is its own caller. */
  get strip(): typeof strip {
    return strip
  }

  get #since(): number {
    return this.#options.onEnd === undefined ? 0 : Instant.nowOf(this.#clock) - this.#began
  }

  get finished(): Effect.Effect<boolean> {
    return Effect.sync(() => this.#finishedAfter !== undefined)
  }

  get ended(): Effect.Effect<boolean> {
    return Effect.sync(() => this.#ended)
  }

  get users(): Effect.Effect<number> {
    return Effect.sync(() => (this.#holder === undefined ? 0 : 1) + (this.#others?.size ?? 0))
  }

  get finish(): Effect.Effect<void> {
    return Effect.uninterruptible(Effect.suspend(() => this.finishUnsafe() ?? Effect.void))
  }

  /** What it gives has to be run, masked. */
  finishUnsafe(): Effect.Effect<void> | undefined {
    if (this.#finishedAfter !== undefined) return undefined
    this.#finishedAfter = this.#since
    this.#noteOutlived()
    return this.#endIfUnused()
  }

  get abandon(): Effect.Effect<void> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        if (this.#ended) return Effect.void
        this.#finishedAfter ??= this.#since
        this.#noteOutlived()
        this.#holder = undefined
        this.#others = undefined
        return this.#endIfUnused() ?? Effect.void
      })
    )
  }

  #noteOutlived(): void {
    if (this.#holder !== undefined) this.#outlives(this.#holder)
    if (this.#others !== undefined) for (const holder of this.#others) this.#outlives(holder)
  }

  #outlives({ name }: Holder): void {
    if (this.#outlived === undefined) this.#outlived = new Set()
    this.#outlived.add(name ?? "unnamed")
  }

  get lease(): Effect.Effect<void, ContextFinished, Scope.Scope> {
    return Effect.asVoid(
      Effect.acquireRelease(
        Effect.suspend(() => {
          if (!this.#ended) return Effect.succeed(this.#release(this.#hold(undefined)))
          this.useUnsafe()
          return Effect.fail(new ContextFinished({ id: this.id, name: this.name }))
        }),
        (release) => release
      )
    )
  }

  /** The lease of a mechanism: after the end it follows the policy and holds nothing. */
  hold(name: string | undefined): Effect.Effect<void> {
    const holder = this.holdUnsafe(name)
    return holder === undefined ? Effect.void : this.#release(holder)
  }

  /** The same from a callback; the holder is what `releaseUnsafe` takes. */
  holdUnsafe(name: string | undefined): Holder | undefined {
    if (!this.#ended) return this.#hold(name)
    this.useUnsafe()
    return undefined
  }

  /** What it gives has to be run, masked. */
  releaseUnsafe(holder: Holder): Effect.Effect<void> | undefined {
    if (this.#holder === holder) this.#holder = undefined
    else if (this.#others?.delete(holder) !== true) return undefined
    return this.#endIfUnused()
  }

  #hold(name: string | undefined): Holder {
    const holder = { name }
    if (this.#holder === undefined) this.#holder = holder
    else {
      if (this.#others === undefined) this.#others = new Set()
      this.#others.add(holder)
    }
    this.#leases++
    if (this.#finishedAfter !== undefined) this.#outlives(holder)
    return holder
  }

  #release(holder: Holder): Effect.Effect<void> {
    return Effect.uninterruptible(Effect.suspend(() => this.releaseUnsafe(holder) ?? Effect.void))
  }

  /** Any use of the request: nothing before its end, the policy's after it. */
  useUnsafe(): void {
    if (!this.#ended) return
    const policy = this.#options.afterEnd ?? "count"
    if (policy === "die") throw new ContextFinished({ id: this.id, name: this.name })
    if (policy === "count") {
      Metric.withAttributes(usedAfterEnd, { name: this.name ?? "unnamed" }).updateUnsafe(1, this.#services)
    }
  }

  /** To be run masked from the step on that calls it: from then on the request counts as ended. */
  #endIfUnused(): Effect.Effect<void> | undefined {
    if (this.#finishedAfter === undefined || this.#holder !== undefined) return undefined
    if (this.#others !== undefined && this.#others.size > 0) return undefined
    this.#ended = true
    this.#options.onEnded?.(this.#outlived)
    const { onEnd } = this.#options
    if (onEnd === undefined) return undefined
    const record: RequestRecord = {
      id: this.id,
      name: this.name,
      startedAt: this.#startedAt,
      finishedAfter: Duration.millis(this.#finishedAfter),
      endedAfter: Duration.millis(this.#since),
      leases: this.#leases,
      outlived: [...(this.#outlived ?? [])]
    }
    return Effect.catchCause(
      Effect.suspend(() => {
        const told = onEnd(record)
        // What has ended already needs neither a limit nor a fiber to keep it in.
        return Exit.isExit(told)
          ? Effect.asVoid(told)
          : Effect.asVoid(boundedAt(told, { name: `record of ${this.id}` }))
      }),
      (cause) => reportUnhandled("cleanup", this.name, cause)
    )
  }
}
