/**
 * Shields: work that its waiter's cancellation does not reach.
 *
 * @since 0.1.0
 */
export { delayCancellation } from "./delayCancellation.ts"
export { stopCancellation } from "./stopCancellation.ts"
