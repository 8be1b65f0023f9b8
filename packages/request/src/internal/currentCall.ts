/**
 * The call in the context of its handler, and the count of answers nobody took.
 *
 * Invariants
 * 1. The reference is set for the handler alone: an edge does not find its own call.
 */
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { Call } from "../Endpoint.ts"
import { requestKeys } from "./caller.ts"

export const CurrentCall: Context.Reference<Call | undefined> = /* @__PURE__ */ Context.Reference(
  requestKeys.call,
  { defaultValue: (): Call | undefined => undefined }
)

export const droppedTotal: Metric.Counter<number> = /* @__PURE__ */ Metric.counter(
  "curfew_answers_dropped_total",
  { description: "Answers that nobody was there for.", incremental: true }
)
