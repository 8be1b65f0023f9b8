/**
 * Requests: who still waits, what happens when nobody does, and when a request has ended.
 *
 * @since 0.1.0
 */
export { awaitPeerGone, completed, isActive, onPeerGone } from "./Asking.ts"
export { ContextFinished } from "./ContextFinished.ts"
export * as Endpoint from "./Endpoint.ts"
export {
  type CallInfo,
  cancellable,
  DefaultOnDisconnect,
  type Handler,
  type OnDisconnect,
  onDisconnect,
  policyOf,
  type Transport
} from "./OnDisconnect.ts"
export * as PeerSignal from "./PeerSignal.ts"
export * as RequestContext from "./RequestContext.ts"
export { foreignInterrupt, type Status, statusOf, statusOfAnswer } from "./Status.ts"
export { type Sent, send } from "./send.ts"
