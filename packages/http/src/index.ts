/**
 * HTTP at the edge: who left, what goes on, what is cleaned up.
 *
 * @since 0.1.0
 */
export * as EdgeMetrics from "./EdgeMetrics.ts"
export type { EdgeRecord, Outcome, SentAnswer } from "./EdgeRecord.ts"
export * as HttpEdge from "./HttpEdge.ts"
