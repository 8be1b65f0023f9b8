/**
 * HTTP at the edge: who left, what goes on, what is cleaned up.
 *
 * @since 0.1.0
 */
export { catchCancelled } from "./catchCancelled.ts"
export * as EdgeMetrics from "./EdgeMetrics.ts"
export type {
  ClientDeadline,
  EdgeOptions,
  ErrorAnswer,
  HandlerOptions,
  Heartbeat,
  UnreadBody
} from "./EdgeOptions.ts"
export type { EdgeRecord, EdgeRequest, Outcome, SentAnswer } from "./EdgeRecord.ts"
export type { Delivery, Exchange } from "./Exchange.ts"
export { fromNode } from "./fromNode.ts"
export * as HttpEdge from "./HttpEdge.ts"
export type { StopReport } from "./NodeEdge.ts"
export * as NodeEdge from "./NodeEdge.ts"
export { type ServerLimits, serverOptions } from "./ServerLimits.ts"
export { type EndOptions, nodeEdge, type PlainEdge, type Serving, serve } from "./serve.ts"
