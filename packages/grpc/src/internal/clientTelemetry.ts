/**
 * What a client tells about its calls: metrics, and the attributes of a call's span.
 *
 * Invariants
 * 1. A call that was started is counted once as completed, by its code, or once as cancelled, by its reason: the first
 *    of the two stands.
 * 2. It is in flight from its start to the end of its release.
 */
import type { CancelReason } from "@curfew/reason"
import { status as statusCodes } from "@grpc/grpc-js"
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type * as Tracer from "effect/Tracer"

export const startedTotal: Metric.Counter<number> = /* @__PURE__ */ Metric.counter(
  "curfew_grpc_client_started_total",
  { description: "gRPC calls that were started.", incremental: true }
)

export const completedTotal: Metric.Counter<number> = /* @__PURE__ */ Metric.counter(
  "curfew_grpc_client_completed_total",
  { description: "gRPC calls that ended with a status.", incremental: true }
)

export const cancelledTotal: Metric.Counter<number> = /* @__PURE__ */ Metric.counter(
  "curfew_grpc_client_cancelled_total",
  { description: "gRPC calls that their caller cancelled.", incremental: true }
)

export const active: Metric.Gauge<number> = /* @__PURE__ */ Metric.gauge("curfew_grpc_client_active", {
  description: "gRPC calls that are in flight."
})

/** `/package.Service/Method` in the two parts that OpenTelemetry wants. */
export const spanOf = (
  path: string
): { readonly name: string; readonly attributes: Record<string, string> } => {
  const name = path.startsWith("/") ? path.slice(1) : path
  const cut = name.lastIndexOf("/")
  return {
    name,
    attributes: {
      "rpc.system": "grpc",
      "rpc.service": cut < 0 ? "" : name.slice(0, cut),
      "rpc.method": name.slice(cut + 1)
    }
  }
}

export class Telemetry {
  readonly #method: string
  readonly #span: Tracer.Span
  readonly #context: Context.Context<never>
  #told = false

  constructor(path: string, span: Tracer.Span, context: Context.Context<never>) {
    this.#method = spanOf(path).name
    this.#span = span
    this.#context = context
    const method = { method: this.#method }
    Metric.withAttributes(startedTotal, method).updateUnsafe(1, context)
    Metric.withAttributes(active, method).modifyUnsafe(1, context)
  }

  completed(code: number): void {
    if (this.#told) return
    this.#told = true
    this.#span.attribute("rpc.grpc.status_code", code)
    const attributes = { method: this.#method, code: statusCodes[code] ?? String(code) }
    Metric.withAttributes(completedTotal, attributes).updateUnsafe(1, this.#context)
  }

  cancelled(reason: CancelReason): void {
    if (this.#told) return
    this.#told = true
    this.#span.attribute("rpc.grpc.status_code", statusCodes.CANCELLED)
    this.#span.attribute("curfew.cancel.reason", reason._tag)
    const attributes = { method: this.#method, reason: reason._tag }
    Metric.withAttributes(cancelledTotal, attributes).updateUnsafe(1, this.#context)
  }

  finished(): void {
    Metric.withAttributes(active, { method: this.#method }).modifyUnsafe(-1, this.#context)
  }
}
