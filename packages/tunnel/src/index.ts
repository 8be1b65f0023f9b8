export * as Services from "./Services.ts"
export { type ConnectOptions, type Endpoint, openForward, serveReverse } from "./Tunnel.ts"
export * as TunnelCall from "./TunnelCall.ts"
export type { TunnelChannel, TunnelHandle, TunnelStats } from "./TunnelChannel.ts"
export { PeerGone, ProtocolViolation, TunnelLost, TunnelOpenError, type TunnelRule } from "./TunnelError.ts"
export type {
  CancelledBy,
  DrainedBy,
  Side,
  StreamFinalizer,
  StreamPhase,
  StreamRef,
  TunnelEnd,
  TunnelEvent,
  TunnelKind
} from "./TunnelEvent.ts"
export type { TunnelOptions } from "./TunnelOptions.ts"
export * as TunnelService from "./TunnelService.ts"
