/**
 * The figures of the desk as Effect metrics, and everything in the registry as Prometheus text.
 *
 * **Invariants**
 * 1. Counters only grow: what is scraped is the difference to the scrape before.
 * 2. No name that a caller chooses becomes a label: series are bounded by codes, reasons and directions.
 */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import type { Desk } from "./desk.ts"
import type { Snapshot } from "./snapshot.ts"

const up = Metric.gauge("curfew_tunnel_ready", { description: "1 while calls can be served, else 0" })
const tunnels = Metric.gauge("curfew_tunnel_tunnels", { description: "Tunnels that are open" })
const inFlight = Metric.gauge("curfew_tunnel_calls_in_flight", { description: "Calls that run now" })

const held = Metric.gauge("curfew_tunnel_held_bytes", {
  description: "Payload bytes in tunnels that wait for a reader or for a window"
})
const stalled = Metric.gauge("curfew_tunnel_stalled_streams", {
  description: "Streams that wait for a window of the peer"
})

const counter = (name: string, description: string) =>
  Metric.counter(name, { description, incremental: true })
const started = counter("curfew_tunnel_calls_started_total", "Calls that were taken")
const refused = counter("curfew_tunnel_calls_refused_total", "Calls that nobody was there to take")
const ended = counter("curfew_tunnel_calls_ended_total", "Calls that have ended, by status code")
const cancelled = counter("curfew_tunnel_calls_cancelled_total", "Calls that were cancelled, by reason")
const bytes = counter("curfew_tunnel_bytes_total", "Payload bytes carried, by direction")
const opened = counter("curfew_tunnel_tunnels_opened_total", "Tunnels that have been opened")

/** Makes the text of a scrape. */
export const makeMetrics = (desk: Desk): ((now: Snapshot) => Effect.Effect<string>) => {
  const told = new Map<string, number>()
  const grow = (metric: Metric.Counter<number>, name: string, value: number) =>
    Effect.suspend(() => {
      const more = value - (told.get(name) ?? 0)
      told.set(name, value)
      return Metric.update(metric, Math.max(0, more))
    })
  return ({ calls, ready, bytes: carried, ...now }) =>
    Effect.gen(function* () {
      yield* Metric.update(up, ready ? 1 : 0)
      yield* Metric.update(tunnels, now.tunnels.length)
      yield* Metric.update(inFlight, calls.inFlight)
      const sum = (name: "heldBytes" | "stalled") =>
        now.tunnels.reduce((all, tunnel) => all + (tunnel[name] ?? 0), 0)
      yield* Metric.update(held, sum("heldBytes"))
      yield* Metric.update(stalled, sum("stalled"))
      yield* grow(started, "started", calls.started)
      yield* grow(refused, "refused", calls.refused)
      yield* grow(opened, "opened", desk.totals.tunnelsOpened)
      for (const [code, count] of Object.entries(calls.codes)) {
        yield* grow(Metric.withAttributes(ended, { code }), `code ${code}`, count)
      }
      for (const [reason, count] of Object.entries(calls.cancelledBy)) {
        yield* grow(Metric.withAttributes(cancelled, { reason }), `reason ${reason}`, count)
      }
      for (const direction of ["requests", "responses"] as const) {
        yield* grow(Metric.withAttributes(bytes, { direction }), direction, carried[direction])
      }
      return yield* PrometheusMetrics.format()
    })
}
