export { GrpcError, type StatusDetail } from "./GrpcError.ts"
export type { Method, MethodKind, MethodOf, MethodOfHandler, MethodsOf, MethodsOfHandlers } from "./Service.ts"
