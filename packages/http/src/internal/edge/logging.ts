/**
 * What an edge logs: one line a request, and what failed.
 *
 * Invariants
 * 1. The line of a request is at info: that a client left is expected.
 * 2. A failure that its client is told 500 of is logged with its cause, at error, once. One that says its own status
 *    is an answer.
 */
import { describe } from "@curfew/reason"
import { CurrentCell } from "@curfew/reason/CancelCell"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpServerError from "effect/http/HttpServerError"
import type { EdgeRecord } from "../../EdgeRecord.ts"

export const logRecord = (record: EdgeRecord): Effect.Effect<void> => {
  const { method, outcome, path, reason, status } = record
  const took = `${Duration.toMillis(record.finishedAfter).toFixed(1)} ms`
  const why = reason === undefined ? "" : `: ${describe(reason)}`
  const line = Effect.annotateLogs(Effect.logInfo(`${method} ${path} ${status} in ${took}${why}`), {
    request: record.id,
    "http.route": record.route,
    "http.status": status,
    outcome,
    ...(reason === undefined ? {} : { reason: reason._tag }),
    sent: record.sent.bytes,
    ...(record.dropped ? { dropped: true } : {}),
    ...(record.outlived.length === 0 ? {} : { outlived: record.outlived.join(", ") })
  })
  // Its reason is the request's, and not that of the fiber that ended last, which Effect may have interrupted.
  return Effect.provideService(line, CurrentCell, undefined)
}

export const logFailure = (route: string, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Effect.flatMap(HttpServerError.causeResponse(cause), ([{ status }]) =>
    status < 500 ? Effect.void : Effect.logError(`${route} was answered ${status}.`, cause)
  )

/** A function of the program's that may not throw has thrown. */
export const threw = (what: string, error: unknown): Effect.Effect<void> =>
  Effect.logError(`${what} threw. Catch what it may throw.`, Cause.die(error))
