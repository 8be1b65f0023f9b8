/**
 * Noticing a cancellation in the middle of work, and cleaning up after it.
 *
 * @since 0.1.0
 */
export { CleanupDefect, cleanupDefect } from "./CleanupDefect.ts"
export { checkpoint, TimeSlice } from "./checkpoint.ts"
export { type CancelGuard, guard } from "./guard.ts"
export { onCancel } from "./onCancel.ts"
