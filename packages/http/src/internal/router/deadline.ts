/**
 * When a request is cancelled: the server's limit of the route, or the time that its client gives it.
 *
 * Invariants
 * 1. The earlier of the two stands, and the reason says whose it was.
 * 2. A client may shorten the time and never lengthen it beyond `max`.
 * 3. A header that is no time is refused, not ignored: whoever sends it counts on it.
 */
import { Instant } from "@curfew/scope"
import { clientMillis } from "../options.ts"
import type { RouteSettings } from "./settings.ts"

/** The deadline of one request. */
export interface Deadline {
  readonly at: Instant.Instant
  readonly origin: "local" | "remote"
}

/** The deadline that stands; `never` without one; `invalid` for a header that is no time. */
export const deadlineOf = (
  settings: RouteSettings,
  /** Its headers are made when they are asked for. */
  request: { readonly headers: Readonly<Record<string, string | undefined>> },
  now: Instant.Instant
): { readonly local: Deadline; readonly client: Deadline } | "invalid" => {
  const local: Deadline = { at: (now + settings.deadline) as Instant.Instant, origin: "local" }
  const given = settings.clientDeadline
  const value = given === undefined ? undefined : request.headers[given.header]
  if (given === undefined || value === undefined) return { local, client: forever }
  const time = clientMillis(value)
  if (time === undefined || Number.isNaN(time)) return "invalid"
  return { local, client: { at: (now + Math.min(time, given.max)) as Instant.Instant, origin: "remote" } }
}

const forever: Deadline = { at: Instant.never, origin: "remote" }

export const earlier = (a: Deadline, b: Deadline): Deadline => (b.at < a.at ? b : a)
