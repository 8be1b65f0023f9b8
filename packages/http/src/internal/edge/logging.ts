/**
 * The line of a request in the access log.
 *
 * Invariants
 * 1. One line a request, at info: that a client left is expected, and what failed is logged where it failed.
 */
import { describe } from "@curfew/reason"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { EdgeRecord } from "../../EdgeRecord.ts"

export const logRecord = (record: EdgeRecord): Effect.Effect<void> => {
  const { method, outcome, path, reason, status } = record
  const took = `${Duration.toMillis(record.finishedAfter).toFixed(1)} ms`
  const why = reason === undefined ? "" : `: ${describe(reason)}`
  return Effect.annotateLogs(Effect.logInfo(`${method} ${path} ${status} in ${took}${why}`), {
    request: record.id,
    "http.route": record.route,
    "http.status": status,
    outcome,
    ...(reason === undefined ? {} : { reason: reason._tag }),
    sent: record.sent.bytes,
    ...(record.dropped ? { dropped: true } : {}),
    ...(record.outlived.length === 0 ? {} : { outlived: record.outlived.join(", ") })
  })
}
