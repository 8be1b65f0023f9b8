/**
 * The life of a request: its users, its end, and the one record of it.
 *
 * Invariants
 * 1. The record is made when the request is finished and nobody holds it any more, or nobody waits for them: once.
 * 2. A hold that was taken before that moment delays it, whether it was taken before or after `finish`.
 * 3. Each hold counts once, however often its release is run. One that was left behind by `abandon` counts no more.
 * 4. The receiver of the record runs masked, within the clean-up budget, in the fiber that ended last; what it fails
 *    with reaches `OnUnhandled` and nobody else.
 */
import { reportUnhandled } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import * as Instant from "@curfew/scope/Instant"
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import { ContextFinished } from "../ContextFinished.ts"
import type { RequestContext, RequestOptions, RequestRecord } from "../RequestContext.ts"

export const usedAfterEnd: Metric.Counter<number> = /* @__PURE__ */ Metric.counter(
  "curfew_request_used_after_end_total",
  { description: "Uses of a request context after its end.", incremental: true }
)

export class RequestState implements RequestContext {
  readonly id: string
  readonly name: string | undefined
  readonly #options: RequestOptions
  readonly #clock: Clock.Clock
  readonly #services: Context.Context<never>
  readonly #startedAt: number
  readonly #began: number
  #finishedAfter: number | undefined
  #leases = 0
  #ended = false
  /** Who holds the request now. */
  readonly #holders = new Set<{ readonly name: string | undefined }>()
  readonly #outlived = new Set<string>()

  constructor(options: RequestOptions, services: Context.Context<never>, clock: Clock.Clock) {
    this.id = options.id
    this.name = options.name
    this.#options = options
    this.#services = services
    this.#clock = clock
    this.#startedAt = clock.currentTimeMillisUnsafe()
    this.#began = Instant.nowOf(clock)
  }

  get #since(): number {
    return Instant.nowOf(this.#clock) - this.#began
  }

  get finished(): Effect.Effect<boolean> {
    return Effect.sync(() => this.#finishedAfter !== undefined)
  }

  get ended(): Effect.Effect<boolean> {
    return Effect.sync(() => this.#ended)
  }

  get users(): Effect.Effect<number> {
    return Effect.sync(() => this.#holders.size)
  }

  get finish(): Effect.Effect<void> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        if (this.#finishedAfter !== undefined) return Effect.void
        this.#finishedAfter = this.#since
        for (const { name } of this.#holders) this.#outlived.add(name ?? "unnamed")
        return this.#endIfUnused()
      })
    )
  }

  get abandon(): Effect.Effect<void> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        if (this.#ended) return Effect.void
        this.#finishedAfter ??= this.#since
        for (const { name } of this.#holders) this.#outlived.add(name ?? "unnamed")
        this.#holders.clear()
        return this.#endIfUnused()
      })
    )
  }

  get lease(): Effect.Effect<void, ContextFinished, Scope.Scope> {
    return Effect.asVoid(
      Effect.acquireRelease(
        Effect.suspend(() => {
          if (!this.#ended) return Effect.succeed(this.#hold(undefined))
          this.useUnsafe()
          return Effect.fail(new ContextFinished({ id: this.id, name: this.name }))
        }),
        (release) => release
      )
    )
  }

  /** The lease of a mechanism: after the end it follows the policy and holds nothing. */
  get hold(): RequestContext["hold"] {
    return (name) => {
      if (!this.#ended) return this.#hold(name)
      this.useUnsafe()
      return Effect.void
    }
  }

  #hold(name: string | undefined): Effect.Effect<void> {
    const holder = { name }
    this.#holders.add(holder)
    this.#leases++
    if (this.#finishedAfter !== undefined) this.#outlived.add(name ?? "unnamed")
    return Effect.uninterruptible(
      Effect.suspend(() => (this.#holders.delete(holder) ? this.#endIfUnused() : Effect.void))
    )
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
  #endIfUnused(): Effect.Effect<void> {
    if (this.#finishedAfter === undefined || this.#holders.size > 0) return Effect.void
    this.#ended = true
    const record: RequestRecord = {
      id: this.id,
      name: this.name,
      startedAt: this.#startedAt,
      finishedAfter: Duration.millis(this.#finishedAfter),
      endedAfter: Duration.millis(this.#since),
      leases: this.#leases,
      outlived: [...this.#outlived]
    }
    return Effect.catchCause(
      Effect.suspend(() => {
        const told = this.#options.onEnd(record)
        // What has ended already needs neither a limit nor a fiber to keep it in.
        return Exit.isExit(told)
          ? Effect.asVoid(told)
          : Effect.asVoid(boundedAt(told, { name: `record of ${this.id}` }))
      }),
      (cause) => reportUnhandled("cleanup", this.name, cause)
    )
  }
}
