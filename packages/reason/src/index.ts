/**
 * Why work stops, and asking whether it does.
 *
 * @since 0.1.0
 */
export { attributes } from "./attributes.ts"
export {
  awaitCancellation,
  currentReason,
  isCancelled,
  outerReason,
  ownCancellation,
  ownInterrupt
} from "./Cancellation.ts"
export { cancelledTotal, cleanupMillis, tellCancels } from "./CancelMetrics.ts"
export { CancelReason, describe, fromAbort, isCancelReason } from "./CancelReason.ts"
export { fromCause, toCause } from "./fromCause.ts"
