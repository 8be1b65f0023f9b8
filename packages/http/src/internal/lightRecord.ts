/**
 * The records of requests that began without a call.
 *
 * Invariants
 * 1. A record tells a request from its own start on, whether it became a call on the way or not.
 */
import type { RequestRecord } from "@curfew/request/RequestContext"
import * as Duration from "effect/Duration"
import type { EdgeRecord, EdgeRequest } from "../EdgeRecord.ts"

/** Of one that never needed a call. */
export const quickRecord = (
  known: EdgeRequest,
  startedAt: number,
  millis: number,
  status: number
): EdgeRecord => {
  const took = Duration.millis(millis)
  return {
    name: known.route,
    startedAt,
    finishedAfter: took,
    endedAfter: took,
    leases: 1,
    outlived: [],
    ...known,
    status,
    outcome: "answered",
    reason: undefined,
    dropped: false,
    sent: { status, bytes: undefined, parts: undefined, whole: true }
  }
}

/** That of its call, told from its own start on. */
export const since = (
  { before, startedAt }: { readonly startedAt: number; readonly before: number },
  record: RequestRecord
): RequestRecord => {
  const later = (duration: Duration.Duration): Duration.Duration =>
    Duration.millis(Duration.toMillis(duration) + before)
  return {
    ...record,
    startedAt,
    finishedAfter: later(record.finishedAfter),
    endedAfter: later(record.endedAfter)
  }
}
