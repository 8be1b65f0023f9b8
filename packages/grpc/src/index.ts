/**
 * gRPC at the edge: calls as Effects and Streams, and Effects as handlers.
 *
 * @since 0.1.0
 */
export { BindError } from "./BindError.ts"
export * as Client from "./Client.ts"
export { GrpcError, type StatusName } from "./GrpcError.ts"
export {
  GrpcServer,
  type GrpcServerOptions,
  type GrpcServerShape,
  type StopReport
} from "./GrpcServer.ts"
export * as Health from "./Health.ts"
export * as Server from "./Server.ts"
export * as ServerCall from "./ServerCall.ts"
export * as ServerCalls from "./ServerCalls.ts"
export type { CallLimits, ConcurrencyLimits, LimitName, LimitStatus } from "./ServerLimits.ts"
export * as ServerMetrics from "./ServerMetrics.ts"
export type {
  ClientMethodOf,
  Method,
  MethodKind,
  MethodOf,
  MethodOfHandler,
  MethodsOf,
  MethodsOfHandlers
} from "./Service.ts"
export type { StatusDetail } from "./StatusDetails.ts"
export * as StatusDetails from "./StatusDetails.ts"
