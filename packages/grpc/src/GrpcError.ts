import type { Metadata } from "@grpc/grpc-js"
import * as Data from "effect/Data"

/**
 * One entry of a rich status: a message of any type, still encoded.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface StatusDetail {
  /** `type.googleapis.com/google.rpc.QuotaFailure`, say. */
  readonly typeUrl: string
  /** The encoded message. */
  readonly value: Uint8Array
}

/**
 * A call that ended with a status other than OK: the one error of this package, at both ends. A client gets it from a
 * call; a handler fails with it to choose its status.
 *
 * **Gotchas**
 *
 * An interrupt of the caller's own fiber is not a `GrpcError`: it stays an interrupt.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class GrpcError extends Data.TaggedError("GrpcError")<{
  /** `status` of grpc-js. */
  readonly code: number
  readonly details: string
  /** The trailers. */
  readonly metadata?: Metadata | undefined
  /** The full name of the method, where it is known: `/package.Service/Method`. */
  readonly method?: string | undefined
  /** The details of `grpc-status-details-bin`. */
  readonly statusDetails?: ReadonlyArray<StatusDetail> | undefined
}> {
  override get message(): string {
    const where = this.method === undefined ? "" : ` in ${this.method}`
    return `gRPC status ${this.code}${where}: ${this.details}`
  }
}
