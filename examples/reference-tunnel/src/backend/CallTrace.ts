import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

/** What a handler leaves of its way, for the timeline: where it stands, and which of its scopes have closed. */
export class CallTrace extends Context.Service<
  CallTrace,
  {
    readonly label: string
    /** What the handler is doing: a sentence's end, such as "while it hashed". */
    phase: string
    /** A write has waited for the caller for longer than it should take. */
    waited: boolean
    /** The scopes that closed, in that order. */
    readonly closed: Array<string>
  }
>()("curfew-example/CallTrace") {}

/** Runs work in a scope of its own that is named when it closes. */
export const inScope = <A, E, R>(
  name: string,
  work: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R | CallTrace> =>
  Effect.flatMap(CallTrace, (trace) =>
    Effect.ensuring(
      work,
      Effect.sync(() => trace.closed.push(name))
    )
  )

/** The phase of a handler that waits for a message to leave. */
export const writingPhase = "while it wrote a page"

/** Says what the work does while it does it. */
export const inPhase = <A, E, R>(
  phase: string,
  work: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R | CallTrace> =>
  Effect.flatMap(CallTrace, (trace) =>
    Effect.suspend(() => {
      const before = trace.phase
      trace.phase = phase
      // Not restored after a cancel: then the phase tells where it struck.
      return Effect.tap(work, () =>
        Effect.sync(() => {
          trace.phase = before
        })
      )
    })
  )
