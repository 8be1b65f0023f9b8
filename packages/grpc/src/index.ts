/**
 * gRPC at the edge: calls as Effects and Streams, and Effects as handlers.
 *
 * @since 0.1.0
 */
export * as Client from "./Client.ts"
export { GrpcError, type StatusName } from "./GrpcError.ts"
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
