/**
 * Where the probes of one subject stand, and what they have seen.
 *
 * Invariants
 * 1. A registry belongs to one world; probes that are made outside of any world have one of their own, which nobody
 *    reads.
 * 2. What a probe sees in the middle of a run is noted with the step of that moment, and read once.
 * 3. A check compares with the moment before the run, not with the beginning of the sweep: a loss is reported for the
 *    run that caused it and not for those that follow.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { FindingKind } from "../Finding.ts"

export interface Broken {
  readonly kind: FindingKind
  readonly probe: string | undefined
  readonly message: string
}

/** What a run was, for a check. */
export interface Ran {
  readonly exit: Exit.Exit<unknown, unknown>
  readonly cancelled: boolean
}

/** Something a probe saw, for a timeline. */
export interface Seen {
  readonly what: "acquired" | "released" | "used" | "began" | "ended" | "note"
  readonly probe: string
  readonly detail: string
}

export interface Check {
  readonly name: string
  /** Before each run. */
  readonly before: Effect.Effect<void>
  /** After each run. */
  readonly after: (ran: Ran) => Effect.Effect<ReadonlyArray<Broken>>
  /** After everything that belongs to the subject was closed. */
  readonly atEnd: () => ReadonlyArray<Broken>
}

/** A question asked after each cancelled run, whose answer has to be a known one. */
export interface Question {
  readonly name: string
  readonly ask: Effect.Effect<unknown, unknown>
  readonly isRight: (exit: Exit.Exit<unknown, unknown>) => string | undefined
}

export class Registry {
  readonly checks: Array<Check> = []
  readonly questions: Array<Question> = []
  /** Told of each event while a timeline is taken. */
  onSeen: ((seen: Seen) => void) | undefined
  #broken: Array<Broken> = []

  see(seen: Seen): void {
    this.onSeen?.(seen)
  }

  /** Notes what is broken at this moment of the run. */
  note(broken: Broken): void {
    if (!this.#broken.some(({ kind, probe }) => kind === broken.kind && probe === broken.probe)) {
      this.#broken.push(broken)
    }
  }

  /** What was noted since the last call. */
  noted(): ReadonlyArray<Broken> {
    const broken = this.#broken
    this.#broken = []
    return broken
  }
}

export const CurrentRegistry: Context.Reference<Registry | undefined> = /* @__PURE__ */ Context.Reference(
  "@curfew/testing/CurrentRegistry",
  { defaultValue: (): Registry | undefined => undefined }
)

/** Gives the registry of the running world, or one that nobody reads. */
export const withRegistry = <A>(use: (registry: Registry) => A): Effect.Effect<A> =>
  Effect.withFiber((fiber) => Effect.succeed(use(fiber.getRef(CurrentRegistry) ?? new Registry())))

export const nothing: Omit<Check, "name"> = {
  before: Effect.void,
  after: () => Effect.succeed([]),
  atEnd: () => []
}
