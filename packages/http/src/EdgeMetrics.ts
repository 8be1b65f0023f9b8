import * as Metric from "effect/Metric"

const counter = (name: string, description: string): Metric.Counter<number> =>
  Metric.counter(name, { description, incremental: true })

/**
 * Requests that an edge took, by `route` and `transport`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const started: Metric.Counter<number> = /* @__PURE__ */ counter(
  "curfew_http_requests_started_total",
  "HTTP requests that were taken."
)

/**
 * Requests that have ended, by `route`, `transport`, `outcome` and `status`: one for each that was started.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const ended: Metric.Counter<number> = /* @__PURE__ */ counter(
  "curfew_http_requests_ended_total",
  "HTTP requests that have ended."
)

/**
 * Requests that were cancelled or left by their client, by `route`, `transport` and `reason`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const cancelled: Metric.Counter<number> = /* @__PURE__ */ counter(
  "curfew_http_requests_cancelled_total",
  "HTTP requests that were cancelled, or that their client left."
)

/**
 * Requests that were still used when they had been answered, or left, by `route`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const outlived: Metric.Counter<number> = /* @__PURE__ */ counter(
  "curfew_http_requests_outlived_total",
  "HTTP requests whose work went on after their end."
)

/**
 * Requests that run now, until the last of their work has ended, by `route` and `transport`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const inFlight: Metric.Gauge<number> = /* @__PURE__ */ Metric.gauge("curfew_http_requests_in_flight", {
  description: "HTTP requests that run now."
})
