/**
 * Which requests of Effect's server can go the quick way.
 *
 * Invariants
 * 1. What something stands against from the beginning goes the other way, as does what something has to go on beside:
 *    upgrades, heartbeats, what did not come by node.
 */
import { cancelledAboveUnsafe } from "@curfew/reason/CancelCell"
import type { OnDisconnect } from "@curfew/request"
import * as Serving from "@curfew/request/Served"
import { Instant } from "@curfew/scope"
import type * as Fiber from "effect/Fiber"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import { promised } from "../body.ts"
import { isHttp2, isOver, type NodeRequest, type NodeResponse } from "../peer.ts"
import { deadlineOf, earlier } from "./deadline.ts"
import type { Served } from "./requests.ts"
import { isNodeRequest, type NodeParts } from "./watching.ts"

/** What is known of a request that can go the quick way. */
export interface Quick {
  readonly source: NodeRequest
  readonly response: NodeResponse
  readonly length: number
  readonly policy: OnDisconnect
}

/** Nothing when something stands against the request from the beginning, or has to go on beside it. */
export const quickly = (
  { name, settings }: Served,
  fiber: Fiber.Fiber<unknown, unknown>,
  request: HttpServerRequest.HttpServerRequest
): Quick | undefined => {
  const { response, source } = request as NodeParts
  if (!isNodeRequest(source) || typeof response !== "object" || settings.watch.heartbeat !== undefined)
    return undefined
  const http2 = isHttp2(source)
  if (isOver(response) || (!http2 && source.socket.readableEnded)) return undefined
  if (cancelledAboveUnsafe(fiber) !== undefined) return undefined
  const length = promised(source)
  if (length > settings.watch.bodyBytes && length !== Number.POSITIVE_INFINITY) return undefined
  if (overBefore(settings, request, fiber)) return undefined
  const policy = settings.policy ?? defaultPolicy(fiber, name, http2 ? "http2" : "http1")
  return policy === undefined ? undefined : { source, response, length, policy }
}

/** Its time is over already, or is none, which only what a client says can be. */
const overBefore = (
  settings: Served["settings"],
  request: HttpServerRequest.HttpServerRequest,
  fiber: Fiber.Fiber<unknown, unknown>
): boolean => {
  if (settings.clientDeadline === undefined) return settings.deadline <= 0
  const now = Instant.nowUnsafe(fiber)
  const deadlines = deadlineOf(settings, request, now)
  return deadlines === "invalid" || earlier(deadlines.local, deadlines.client).at <= now
}

/** A function of the program's. Where it throws, the edge that waits says so. */
const defaultPolicy = (
  { context }: Fiber.Fiber<unknown, unknown>,
  method: string,
  transport: "http1" | "http2"
): OnDisconnect | undefined => {
  try {
    return Serving.policyUnsafe(undefined, context, { method, kind: "request", transport })
  } catch {
    return undefined
  }
}
