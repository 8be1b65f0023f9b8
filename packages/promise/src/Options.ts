import type { CancelReason } from "@curfew/reason"
import type { Owner } from "./owner.ts"

/**
 * Work for a promise: it is given the signal that tells it to stop, whose reason is a {@link Cancelled}. It may also give
 * its value at once, or throw.
 *
 * The signal is more than an ear. Handed on to another function of this package it says where the new work belongs: below
 * the work that was given the signal.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Work<A> = (signal: AbortSignal) => A | PromiseLike<A>

/**
 * What every function that starts work can be told.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface WorkOptions {
  /** Cancels the work. A signal of a scope or of other work also makes it part of that. */
  readonly signal?: AbortSignal | undefined
  /** Answers for the work where no scope does. Default: the owner above, at the top {@link processOwner}. */
  readonly owner?: Owner | undefined
  /** Stands in the live tree, in reports, and in a stuck record. Default: the name of the function. */
  readonly name?: string | undefined
}

/**
 * A failure that nobody waits for, as a receiver is told it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface UnhandledError {
  /** What kind of work it was. */
  readonly origin: "task" | "sibling" | "cleanup" | "late result" | "abandoned work"
  readonly name: string | undefined
  /** What was thrown. */
  readonly error: unknown
  /** Why the work was being cancelled at the time, if it was. */
  readonly reason: CancelReason | undefined
}

/**
 * Receives a failure that nobody waits for. Default: it is logged.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type OnUnhandled = (unhandled: UnhandledError) => unknown

/**
 * Receives what work still produced when its caller had left: a {@link PromiseSettledResult}.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type OnLate<A> = (result: PromiseSettledResult<A>) => unknown
