export { BindError } from "./BindError.ts"
export { GrpcError, type StatusDetail } from "./GrpcError.ts"
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
  Method,
  MethodKind,
  MethodOf,
  MethodOfHandler,
  MethodsOf,
  MethodsOfHandlers
} from "./Service.ts"
