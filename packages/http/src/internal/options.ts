/**
 * Options, read once where they are given.
 *
 * Invariants
 * 1. What means nothing is an `IllegalArgument` before anything is served.
 * 2. Each limit has a bound unless somebody asks for none, by infinity.
 */
import type { OnDisconnect } from "@curfew/request/OnDisconnect"
import { IllegalArgument } from "@curfew/scope"
import { countUnsafe, millisUnsafe } from "@curfew/scope/Argument"
import * as Duration from "effect/Duration"
import type { ClientDeadline, EdgeOptions, ErrorAnswer, HandlerOptions } from "../EdgeOptions.ts"
import type { UnreadBody } from "./body.ts"

export interface Resolved {
  readonly route: string | undefined
  readonly kind: "request" | "stream"
  readonly policy: OnDisconnect | undefined
  /** Milliseconds. */
  readonly deadline: number
  readonly clientDeadline: { readonly header: string; readonly max: number } | undefined
  readonly body: UnreadBody
  readonly bodyBytes: number
  readonly halfClose: "gone" | "stays"
  readonly heartbeat: { readonly every: Duration.Duration; readonly within: Duration.Duration } | undefined
  readonly mapError: ((error: unknown) => ErrorAnswer | undefined) | undefined
}

const mebibyte = 1024 * 1024

export const resolve = (options: HandlerOptions | undefined, edge: EdgeOptions): Resolved => {
  const pick = <K extends keyof EdgeOptions & keyof HandlerOptions>(key: K): HandlerOptions[K] =>
    options?.[key] ?? (edge as HandlerOptions)[key]
  const heartbeat = pick("heartbeat")
  const halfClose = pick("halfClose") ?? "gone"
  if (halfClose !== "gone" && halfClose !== "stays") {
    throw new IllegalArgument({ argument: "halfClose", value: halfClose, expected: '"gone" or "stays"' })
  }
  const bodyBytes = countUnsafe("bodyBytes", pick("bodyBytes") ?? mebibyte, 0)
  return {
    route: options?.route,
    kind: options?.kind ?? "request",
    policy: pick("policy"),
    deadline: millisUnsafe("the deadline of the handler", pick("deadline") ?? Duration.infinity),
    clientDeadline: clientDeadlineOf(pick("clientDeadline")),
    // By default every body that is let in can be read ahead: no client leaves unnoticed.
    body: bodyOf(pick("body") ?? { buffer: Math.min(bodyBytes, mebibyte) }),
    bodyBytes,
    halfClose,
    heartbeat:
      heartbeat === undefined
        ? undefined
        : {
            every: interval("heartbeat.every", heartbeat.every),
            within: interval("heartbeat.within", heartbeat.within ?? heartbeat.every)
          },
    mapError: pick("mapError")
  }
}

/** A client's own deadline, by the name that node has for its header. */
export const clientDeadlineOf = (given: ClientDeadline | undefined): Resolved["clientDeadline"] => {
  if (given === undefined) return undefined
  const { header, max } = given
  if (typeof header !== "string" || !/^[!#$%&'*+.^_`|~0-9a-z-]+$/i.test(header)) {
    throw new IllegalArgument({
      argument: "the header of the client's deadline",
      value: header,
      expected: 'the name of a header, such as "x-request-timeout"'
    })
  }
  return { header: header.toLowerCase(), max: millisUnsafe("the max of the client's deadline", max) }
}

const interval = (argument: string, input: Duration.Input): Duration.Duration => {
  const millis = millisUnsafe(argument, input)
  if (millis > 0) return Duration.millis(millis)
  throw new IllegalArgument({
    argument,
    value: input,
    expected: 'a duration above zero, such as "15 seconds"'
  })
}

const bodyOf = (body: UnreadBody): UnreadBody => {
  if (body === "drain" || body === "ignore") return body
  if (typeof body === "object" && body !== null && "buffer" in body) {
    countUnsafe("body.buffer", body.buffer, 0)
    return body
  }
  throw new IllegalArgument({
    argument: "body",
    value: body,
    expected: '"drain", "ignore", or { buffer: 1_048_576 }'
  })
}

/** The milliseconds that a client asks for, `undefined` when it asks for nothing, NaN when it cannot be read. */
export const clientMillis = (value: string | undefined): number | undefined => {
  if (value === undefined) return undefined
  const read = /^(\d{1,12})(ms|s)?$/.exec(value.trim())
  return read === null ? Number.NaN : Number(read[1]) * (read[2] === "s" ? 1_000 : 1)
}
