import * as Metric from "effect/Metric"

const counter = (name: string, description: string): Metric.Counter<number> =>
  Metric.counter(name, { description, incremental: true })

/**
 * Calls that were taken, by `method` and `transport`. What was refused at a limit is not among them.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const started: Metric.Counter<number> = /* @__PURE__ */ counter(
  "curfew_grpc_server_calls_started_total",
  "gRPC calls that were taken."
)

/**
 * Calls whose handler ended by itself, by `method`, `transport` and `code`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const completed: Metric.Counter<number> = /* @__PURE__ */ counter(
  "curfew_grpc_server_calls_completed_total",
  "gRPC calls whose handler ended by itself."
)

/**
 * Calls that were cancelled, by `method`, `transport` and `reason`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const cancelled: Metric.Counter<number> = /* @__PURE__ */ counter(
  "curfew_grpc_server_calls_cancelled_total",
  "gRPC calls that were cancelled."
)

/**
 * Cancelled calls whose clean-up overran its budget, by `method` and `transport`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const abandoned: Metric.Counter<number> = /* @__PURE__ */ counter(
  "curfew_grpc_server_calls_abandoned_total",
  "gRPC calls that were left behind with their clean-up."
)

/**
 * Calls that were refused before they began, by `method`, `transport` and `limit`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const refused: Metric.Counter<number> = /* @__PURE__ */ counter(
  "curfew_grpc_server_calls_refused_total",
  "gRPC calls that were refused before they began."
)

/**
 * Calls that run now, until their handler has ended, by `method` and `transport`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const inFlight: Metric.Gauge<number> = /* @__PURE__ */ Metric.gauge(
  "curfew_grpc_server_calls_in_flight",
  {
    description: "gRPC calls that run now."
  }
)

/**
 * Cancellation events that nobody read in time.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const eventsLost: Metric.Counter<number> = /* @__PURE__ */ counter(
  "curfew_grpc_server_events_lost_total",
  "Cancellation events that did not fit the buffer."
)
