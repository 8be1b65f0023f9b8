export type {
  AgentEvent,
  AgentFailure,
  AgentOptions,
  AgentState,
  BackoffOptions,
  CallingAgent,
  CallingAgentOptions
} from "./Agent.ts"
export * as Agent from "./Agent.ts"
export type { CallToPlace, LoadedTunnel, Policy } from "./Picking.ts"
export type { ReverseChange, ReverseChannelOptions, ReverseTunnel, ReverseTunnels } from "./ReverseTunnels.ts"
export * as Services from "./Services.ts"
export { type ConnectOptions, type Endpoint, openForward, serveReverse } from "./Tunnel.ts"
export {
  AccessRefused,
  type Authenticate,
  type Authorize,
  type CallToAuthorize,
  type TunnelOpening,
  type TunnelOrigin
} from "./TunnelAuth.ts"
export * as TunnelCall from "./TunnelCall.ts"
export type { TunnelChannel, TunnelHandle, TunnelStats } from "./TunnelChannel.ts"
export {
  PeerGone,
  ProtocolViolation,
  TunnelLost,
  TunnelOpenError,
  type TunnelRule,
  TunnelsNotReady
} from "./TunnelError.ts"
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
export type { KeepaliveOptions, TunnelOptions } from "./TunnelOptions.ts"
export * as TunnelService from "./TunnelService.ts"
