/**
 * Shared work: one run for many observers.
 *
 * @since 0.1.0
 */
export * as Shared from "./Shared.ts"
export { SharedCancelled } from "./SharedCancelled.ts"
export * as SharedMap from "./SharedMap.ts"
export type { SharedOptions, SharedStatistics } from "./SharedOptions.ts"
export { SharedSelfWait } from "./SharedSelfWait.ts"
export { SharedStuck } from "./SharedStuck.ts"
