/**
 * Cancellation for plain promises.
 *
 * @since 0.1.0
 */

export { ChildCancelled } from "@curfew/gather"
export { CancelReason, describe } from "@curfew/reason"
export { DeadlineExceeded, InterruptedElsewhere, TaskScopeClosed } from "@curfew/scope"
export { SharedCancelled } from "@curfew/singleflight"
export { Cancelled, isCancelled } from "./Cancelled.ts"
export { type CancelGuard, type CancelScope, type CancelScopeOptions, cancelScope } from "./cancelScope.ts"
export { checkpoint } from "./checkpoint.ts"
export { type ClosingResponse, clientGone } from "./clientGone.ts"
export { delayCancellation } from "./delayCancellation.ts"
export { failAfter } from "./failAfter.ts"
export { type Gatherable, type Gathered, type GatherItem, gather } from "./gather.ts"
export { InvalidDuration } from "./InvalidDuration.ts"
export { moveOnAfter } from "./moveOnAfter.ts"
export type { OnLate, OnUnhandled, UnhandledError, Work, WorkOptions } from "./Options.ts"
export { onCancel } from "./onCancel.ts"
export { type Owner, owner, processOwner } from "./owner.ts"
export { promiseSettled } from "./promiseSettled.ts"
export { settled } from "./settled.ts"
export { type Shared, type SharedOptions, shared } from "./shared.ts"
export { type SharedMap, sharedMap } from "./sharedMap.ts"
export { siblingFailures } from "./siblingFailures.ts"
export { stopCancellation } from "./stopCancellation.ts"
export type { Task } from "./Task.ts"
export { withCancelScope } from "./withCancelScope.ts"
