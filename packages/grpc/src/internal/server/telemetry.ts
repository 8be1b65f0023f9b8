/**
 * What a server tells about its calls: metrics, and the span of each.
 *
 * Invariants
 * 1. A call that was let in is counted once as started, is in flight until it leaves, and is counted once as completed
 *    or as cancelled. One that was refused is counted as that and as nothing else.
 * 2. A span stands below the client's own, or is a root: nothing of the owner's own work is above it.
 * 3. A call has a span where somebody can see one: a tracer was provided, or the client sent its trace context.
 * 4. The series of a method are looked up once for all of its calls.
 */
import { counterLike, gaugeLike, seriesOf } from "@curfew/reason/seriesOf"
import type { Transport } from "@curfew/request/OnDisconnect"
import { status as Code } from "@grpc/grpc-js"
import type * as Context from "effect/Context"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import type * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"
import type { LimitName } from "../../ServerLimits.ts"
import * as Metrics from "../../ServerMetrics.ts"
import type { CallState } from "./callState.ts"

type Services = Context.Context<never>
type Series = Metric.Metric<number, unknown>

const startedOf = /* @__PURE__ */ seriesOf(
  /* @__PURE__ */ counterLike(Metrics.started),
  "method",
  "transport"
)
const inFlightOf = /* @__PURE__ */ seriesOf(
  /* @__PURE__ */ gaugeLike(Metrics.inFlight),
  "method",
  "transport"
)
const refusedOf = /* @__PURE__ */ seriesOf(
  /* @__PURE__ */ counterLike(Metrics.refused),
  "method",
  "transport",
  "limit"
)
const completedOf = /* @__PURE__ */ seriesOf(
  /* @__PURE__ */ counterLike(Metrics.completed),
  "method",
  "transport",
  "code"
)
const cancelledOf = /* @__PURE__ */ seriesOf(
  /* @__PURE__ */ counterLike(Metrics.cancelled),
  "method",
  "transport",
  "reason"
)
const abandonedOf = /* @__PURE__ */ seriesOf(
  /* @__PURE__ */ counterLike(Metrics.abandoned),
  "method",
  "transport"
)

/** What the calls of one method by one transport are counted in. */
export class MethodMetrics {
  readonly #method: string
  readonly #transport: Transport
  readonly #context: Services
  readonly #started: Series
  readonly #inFlight: Series
  readonly #ok: Series

  constructor(method: string, transport: Transport, context: Services) {
    this.#method = method
    this.#transport = transport
    this.#context = context
    this.#started = startedOf(method, transport)
    this.#inFlight = inFlightOf(method, transport)
    this.#ok = completedOf(method, transport, String(Code.OK))
  }

  started(): void {
    this.#started.updateUnsafe(1, this.#context)
    this.#inFlight.modifyUnsafe(1, this.#context)
  }

  left(): void {
    this.#inFlight.modifyUnsafe(-1, this.#context)
  }

  refused(limit: LimitName): void {
    refusedOf(this.#method, this.#transport, limit).updateUnsafe(1, this.#context)
  }

  completed(code: number): void {
    const series = code === Code.OK ? this.#ok : completedOf(this.#method, this.#transport, String(code))
    series.updateUnsafe(1, this.#context)
  }

  cancelled(reason: string): void {
    cancelledOf(this.#method, this.#transport, reason).updateUnsafe(1, this.#context)
  }

  abandoned(): void {
    abandonedOf(this.#method, this.#transport).updateUnsafe(1, this.#context)
  }
}

/** What a span has, as OpenTelemetry's conventions for RPC say; `undefined` where nobody would see one. */
export const spanOptions = (call: CallState, traced: boolean): Tracer.SpanOptions | undefined => {
  const traceparent = call.header("traceparent")
  const parent =
    typeof traceparent === "string" ? HttpTraceContext.w3c({ traceparent } as never) : Option.none()
  if (!traced && Option.isNone(parent)) return undefined
  const name = spanName(call)
  const slash = name.lastIndexOf("/")
  return {
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
  }
}

export const spanName = (call: CallState): string => call.method.slice(1)

/** Those that OpenTelemetry counts as errors of a server. */
export const isServerError = (code: number): boolean =>
  code === Code.UNKNOWN ||
  code === Code.DEADLINE_EXCEEDED ||
  code === Code.UNIMPLEMENTED ||
  code === Code.INTERNAL ||
  code === Code.UNAVAILABLE ||
  code === Code.DATA_LOSS
