/**
 * What the edges count, of whichever server.
 *
 * Invariants
 * 1. A request is counted once as started and once as ended, and is in flight between the two.
 */
import { seriesOf } from "@curfew/reason/seriesOf"
import type * as Context from "effect/Context"
import * as Metrics from "../EdgeMetrics.ts"
import type { EdgeRecord, EdgeRequest } from "../EdgeRecord.ts"

const startedOf = /* @__PURE__ */ seriesOf(Metrics.started, "route", "transport")
const endedOf = /* @__PURE__ */ seriesOf(Metrics.ended, "route", "transport", "outcome", "status")
const cancelledOf = /* @__PURE__ */ seriesOf(Metrics.cancelled, "route", "transport", "reason")
const outlivedOf = /* @__PURE__ */ seriesOf(Metrics.outlived, "route")
const inFlightOf = /* @__PURE__ */ seriesOf(Metrics.inFlight, "route", "transport")

export const countStart = (
  { route, transport }: Pick<EdgeRequest, "route" | "transport">,
  services: Context.Context<never>
): void => {
  startedOf(route, transport).updateUnsafe(1, services)
  inFlightOf(route, transport).modifyUnsafe(1, services)
}

export const countEnd = (record: EdgeRecord, services: Context.Context<never>): void => {
  const { outcome, outlived, reason, route, status, transport } = record
  inFlightOf(route, transport).modifyUnsafe(-1, services)
  endedOf(route, transport, outcome, String(status)).updateUnsafe(1, services)
  if (reason !== undefined) cancelledOf(route, transport, reason._tag).updateUnsafe(1, services)
  if (outlived.length > 0) outlivedOf(route).updateUnsafe(1, services)
}

export const pathOf = (url: string): string => {
  const end = url.search(/[?#]/)
  return end < 0 ? url : url.slice(0, end)
}
