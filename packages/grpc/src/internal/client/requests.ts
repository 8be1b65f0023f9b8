/**
 * The request stream of a call: a fiber beside the caller's, which sends what the stream gives.
 *
 * Invariants
 * 1. It stands under the caller's cell, by name, from its first operation until its fiber has ended: a cancel from above
 *    reaches it in the same turn.
 * 2. What it fails with is the call's outcome or reaches `OnUnhandled`, exactly once, and is told in its last mask: the
 *    call that it ends cancels this very fiber.
 * 3. The stream's own finalizers have run before its end or its failure is told.
 * 4. Whoever stops it waits for it, within the clean-up budget.
 * 5. While nothing is sent it holds its fiber, one continuation, and what the stream itself holds.
 */
import { CancelReason, currentReason } from "@curfew/reason"
import { type CancelCell, forkCellUnsafe } from "@curfew/reason/CancelCell"
import { failureOf, InterruptedElsewhere, reportUnhandled } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/** The call whose requests they are. */
export interface Sink<Request, E> {
  /** Sends messages and waits until the last has been taken; ends by an interrupt when nothing may be sent. */
  readonly send: (messages: ReadonlyArray<Request>) => Effect.Effect<void>
  readonly halfCloseUnsafe: () => void
  /** False when the call's outcome stood already. */
  readonly requestsFailed: (cause: Cause.Cause<E>) => boolean
}

const scopeEnded: CancelReason = CancelReason.Requested({ message: "the scope of the call has closed" })

export class RequestPump<Request, E> {
  readonly #sink: Sink<Request, E>
  readonly #cell: CancelCell
  /** The stream's own. */
  readonly #scope = Scope.makeUnsafe()
  #fiber: Fiber.Fiber<unknown, unknown> | undefined

  private constructor(sink: Sink<Request, E>, cell: CancelCell) {
    this.#sink = sink
    this.#cell = cell
  }

  /** Starts the stream for the call that the fiber makes; `undefined` below a cancelled scope. */
  static startUnsafe<Request, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    scope: Scope.Scope,
    sink: Sink<Request, E>,
    stream: Stream.Stream<Request, E, unknown>,
    name: string
  ): RequestPump<Request, E> | undefined {
    const cell = forkCellUnsafe(fiber, "task", name)
    if (cell.reason !== undefined) {
      cell.unlink()
      return undefined
    }
    const pump = new RequestPump<Request, E>(sink, cell)
    pump.#start(Context.add(fiber.context, Scope.Scope, scope), stream as Stream.Stream<Request, E>)
    return pump
  }

  #start(context: Context.Context<never>, stream: Stream.Stream<Request, E>): void {
    const fiber = Child.startUnder(context, this.#cell, this.#run(stream), this)
    this.#fiber = fiber
    if (fiber.pollUnsafe() === undefined) fiber.addObserver(() => this.#cell.unlink())
    else this.#cell.unlink()
  }

  #run(stream: Stream.Stream<Request, E>): Effect.Effect<never, E | Cause.Done<void>> {
    return Effect.suspend(() => {
      // What it gives next, sent: a continuation that leads to itself, in place of a loop around one.
      const rest: Effect.Effect<never, E | Cause.Done<void>> = Effect.flatMap(
        Channel.toTransform(Stream.toChannel(stream))(Cause.done(), this.#scope),
        (pull) => {
          const next: Effect.Effect<never, E | Cause.Done<void>> = Effect.flatMap(pull, (messages) =>
            Effect.andThen(this.#sink.send(messages), next)
          )
          return next
        }
      )
      return rest
    })
  }

  // ── its end ────────────────────────────────────────────────────────────────────────────────────────────────

  /** Told how it ended, before its children are cleaned up. */
  settle(exit: Exit.Exit<never, E | Cause.Done<void>>): Effect.Effect<void> | undefined {
    const failed = exit as Exit.Failure<never, E | Cause.Done<void>>
    const ended: Exit.Exit<void, E> = Pull.isDoneCause(failed.cause)
      ? Exit.void
      : (failed as Exit.Failure<never, E>)
    const closing = Scope.closeUnsafe(this.#scope, ended)
    if (closing === undefined) return this.#told(ended)
    return Effect.flatMap(
      Effect.exit(closing),
      (closed) => this.#told(withFailure(ended, closed)) ?? Effect.void
    )
  }

  #told(exit: Exit.Exit<void, E>): Effect.Effect<void> | undefined {
    if (exit._tag === "Success") {
      this.#sink.halfCloseUnsafe()
      return undefined
    }
    const { name, reason } = this.#cell
    if (this.#sink.requestsFailed(exit.cause)) return undefined
    const failure =
      failureOf(exit.cause) ??
      (reason === undefined ? Cause.die(new InterruptedElsewhere({ task: name })) : undefined)
    return failure === undefined ? undefined : reportUnhandled("task", name, failure, reason)
  }

  /** Ends it without waiting. */
  cancel(reason: CancelReason): void {
    this.#cell.cancel(reason)
  }

  /** Ends it, and waits for its end. */
  get stop(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const fiber = this.#fiber
      if (fiber === undefined || fiber.pollUnsafe() !== undefined) return Effect.void
      return Effect.flatMap(currentReason, (reason) => {
        this.#cell.cancel(Option.getOrElse(reason, () => scopeEnded))
        return Child.awaitCancelled(this.#cell, fiber)
      })
    })
  }
}

const withFailure = <E>(exit: Exit.Exit<void, E>, closed: Exit.Exit<unknown>): Exit.Exit<void, E> => {
  if (closed._tag === "Success") return exit
  return Exit.failCause(exit._tag === "Success" ? closed.cause : Cause.combine(exit.cause, closed.cause))
}
