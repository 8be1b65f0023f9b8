/**
 * Cancel scopes, task scopes, owners, deadlines and bounded clean-up.
 *
 * @since 0.1.0
 */
export { currentSignal, withSignal } from "./abortSignal.ts"
export { background, backgroundActive, ownerClosedTotal } from "./background.ts"
export { bounded } from "./bounded.ts"
export * as CancelLogs from "./CancelLogs.ts"
export * as CancelScope from "./CancelScope.ts"
export * as CancelTracing from "./CancelTracing.ts"
export { CleanupBudget } from "./CleanupBudget.ts"
export { DeadlineExceeded } from "./DeadlineExceeded.ts"
export { failAfter } from "./failAfter.ts"
export { failureOf } from "./failureOf.ts"
export { IllegalArgument } from "./IllegalArgument.ts"
export * as Instant from "./Instant.ts"
export {
  type FormatOptions,
  formatTree,
  inspect,
  type JsonNode,
  type JsonTree,
  type LiveNode,
  type LiveState,
  type LiveTree,
  liveGauge,
  toJson,
  updateLiveMetrics
} from "./inspect.ts"
export type { TimeLimitOptions } from "./internal/timeLimit.ts"
export { moveOnAfter } from "./moveOnAfter.ts"
export { OnUnhandled, reportUnhandled, type Unhandled, unhandledTotal } from "./OnUnhandled.ts"
export { Owner, type OwnerOptions } from "./Owner.ts"
export { SiblingFailures, siblingFailures } from "./SiblingFailures.ts"
export { type StuckRecord, stuck, stuckTotal } from "./Stuck.ts"
export {
  ForeignTaskScope,
  InterruptedElsewhere,
  NeverReady,
  type Task,
  TaskCancelled,
  TaskScopeClosed,
  type TaskStatus
} from "./Task.ts"
export * as TaskScope from "./TaskScope.ts"
