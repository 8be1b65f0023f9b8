/**
 * What a server tells about its calls: metrics, and the span of each.
 *
 * Invariants
 * 1. A call that was let in is counted once as started, is in flight until it leaves, and is counted once as completed
 *    or as cancelled. One that was refused is counted as that and as nothing else.
 * 2. A span stands below the client's own, or is a root: nothing of the owner's own work is above it.
 */
import { seriesOf } from "@curfew/reason/seriesOf"
import { status as Code } from "@grpc/grpc-js"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as Option from "effect/Option"
import type { LimitName } from "../../ServerLimits.ts"
import * as Metrics from "../../ServerMetrics.ts"
import type { CallState } from "./callState.ts"

type Services = Context.Context<never>

const startedOf = /* @__PURE__ */ seriesOf(Metrics.started, "method", "transport")
const inFlightOf = /* @__PURE__ */ seriesOf(Metrics.inFlight, "method", "transport")
const refusedOf = /* @__PURE__ */ seriesOf(Metrics.refused, "method", "transport", "limit")
const completedOf = /* @__PURE__ */ seriesOf(Metrics.completed, "method", "transport", "code")
const cancelledOf = /* @__PURE__ */ seriesOf(Metrics.cancelled, "method", "transport", "reason")
const abandonedOf = /* @__PURE__ */ seriesOf(Metrics.abandoned, "method", "transport")

export const started = ({ method, transport }: CallState, context: Services): void => {
  startedOf(method, transport).updateUnsafe(1, context)
  inFlightOf(method, transport).modifyUnsafe(1, context)
}

export const left = ({ method, transport }: CallState, context: Services): void =>
  inFlightOf(method, transport).modifyUnsafe(-1, context)

export const refused = ({ method, transport }: CallState, limit: LimitName, context: Services): void =>
  refusedOf(method, transport, limit).updateUnsafe(1, context)

export const completed = ({ method, transport }: CallState, code: number, context: Services): void =>
  completedOf(method, transport, String(code)).updateUnsafe(1, context)

export const cancelled = ({ method, transport }: CallState, reason: string, context: Services): void =>
  cancelledOf(method, transport, reason).updateUnsafe(1, context)

export const abandoned = ({ method, transport }: CallState, context: Services): void =>
  abandonedOf(method, transport).updateUnsafe(1, context)

/** A span as OpenTelemetry's conventions for RPC have it, below the client's own. */
export const traced = <A, E>(call: CallState, body: Effect.Effect<A, E>): Effect.Effect<A, E> => {
  const name = call.method.slice(1)
  const slash = name.lastIndexOf("/")
  const [traceparent] = call.metadata.get("traceparent")
  const parent =
    typeof traceparent === "string" ? HttpTraceContext.w3c({ traceparent } as never) : Option.none()
  return Effect.withSpan(body, name, {
    kind: "server",
    // It would say where this module is, at the price of a stack trace per call.
    captureStackTrace: false,
    ...(Option.isSome(parent) ? { parent: parent.value } : { root: true }),
    attributes: {
      "rpc.system": "grpc",
      "rpc.service": name.slice(0, slash),
      "rpc.method": name.slice(slash + 1),
      "client.address": call.peer,
      "curfew.transport": call.transport,
      "curfew.request.id": call.id
    }
  })
}

/** Those that OpenTelemetry counts as errors of a server. */
export const isServerError = (code: number): boolean =>
  code === Code.UNKNOWN ||
  code === Code.DEADLINE_EXCEEDED ||
  code === Code.UNIMPLEMENTED ||
  code === Code.INTERNAL ||
  code === Code.UNAVAILABLE ||
  code === Code.DATA_LOSS
