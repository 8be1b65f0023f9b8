/**
 * What a client tells about its calls: metrics, and the attributes of a call's span.
 *
 * Invariants
 * 1. A call that was started is counted once as completed, by its code, or once as cancelled, by its reason: the first
 *    of the two stands.
 * 2. It is in flight from its start to the end of its release.
 * 3. The series of a method are looked up once for all of its calls.
 */
import type { CancelReason } from "@curfew/reason"
import { counterLike, gaugeLike, seriesOf } from "@curfew/reason/seriesOf"
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

const startedOf = /* @__PURE__ */ seriesOf(/* @__PURE__ */ counterLike(startedTotal), "method")
const completedOf = /* @__PURE__ */ seriesOf(/* @__PURE__ */ counterLike(completedTotal), "method", "code")
const cancelledOf = /* @__PURE__ */ seriesOf(/* @__PURE__ */ counterLike(cancelledTotal), "method", "reason")
const activeOf = /* @__PURE__ */ seriesOf(/* @__PURE__ */ gaugeLike(active), "method")

/** What all calls of one method tell alike. */
export class MethodTelemetry {
  /** `package.Service/Method`. */
  readonly name: string
  /** Of a span: the path in the two parts that OpenTelemetry wants. */
  readonly attributes: Readonly<Record<string, string>>
  readonly started: Metric.Metric<number, unknown>
  readonly active: Metric.Metric<number, unknown>
  readonly ok: Metric.Metric<number, unknown>

  constructor(path: string) {
    const name = path.startsWith("/") ? path.slice(1) : path
    const cut = name.lastIndexOf("/")
    this.name = name
    this.attributes = {
      "rpc.system": "grpc",
      "rpc.service": cut < 0 ? "" : name.slice(0, cut),
      "rpc.method": name.slice(cut + 1)
    }
    this.started = startedOf(name)
    this.active = activeOf(name)
    this.ok = completedOf(name, "OK")
  }
}

export class Telemetry {
  readonly #method: MethodTelemetry
  readonly #span: Tracer.Span | undefined
  readonly #context: Context.Context<never>
  #told = false

  constructor(method: MethodTelemetry, span: Tracer.Span | undefined, context: Context.Context<never>) {
    this.#method = method
    this.#span = span
    this.#context = context
    method.started.updateUnsafe(1, context)
    method.active.modifyUnsafe(1, context)
  }

  completed(code: number): void {
    if (this.#told) return
    this.#told = true
    this.#span?.attribute("rpc.grpc.status_code", code)
    const series =
      code === statusCodes.OK
        ? this.#method.ok
        : completedOf(this.#method.name, statusCodes[code] ?? String(code))
    series.updateUnsafe(1, this.#context)
  }

  cancelled(reason: CancelReason): void {
    if (this.#told) return
    this.#told = true
    this.#span?.attribute("rpc.grpc.status_code", statusCodes.CANCELLED)
    this.#span?.attribute("curfew.cancel.reason", reason._tag)
    cancelledOf(this.#method.name, reason._tag).updateUnsafe(1, this.#context)
  }

  finished(): void {
    this.#method.active.modifyUnsafe(-1, this.#context)
  }
}
