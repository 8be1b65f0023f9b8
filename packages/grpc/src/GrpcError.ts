import { type Metadata, type StatusObject, status as statusCodes } from "@grpc/grpc-js"
import * as Data from "effect/Data"
import { decode, type StatusDetail } from "./StatusDetails.ts"

/**
 * The name of a status other than OK: `"NOT_FOUND"`, say.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type StatusName = Exclude<keyof typeof statusCodes, "OK">

/**
 * A call that ended with a status other than OK: the one error of this package, at both ends. A client gets it from a
 * call; a handler fails with it to choose its status.
 *
 * **Gotchas**
 *
 * An interrupt of the caller's own fiber is not a `GrpcError`: it stays an interrupt.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { GrpcError } from "@curfew/grpc"
 *
 * const find = Effect.fail(GrpcError.make("NOT_FOUND", "there is no order 7"))
 * const program = find.pipe(
 *   Effect.catchIf(GrpcError.is("NOT_FOUND"), (error) => Effect.succeed(error.details))
 * )
 * Effect.runSync(program) // => "there is no order 7"
 * ```
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
  /** An error by the name of its status. */
  static make(
    status: StatusName,
    details: string,
    more?: {
      readonly metadata?: Metadata | undefined
      readonly method?: string | undefined
      readonly statusDetails?: ReadonlyArray<StatusDetail> | undefined
    }
  ): GrpcError {
    return new GrpcError({ code: statusCodes[status], details, ...more })
  }

  /** Tells whether something is a `GrpcError` with one of these statuses. Without a name, with any. */
  static is(...names: ReadonlyArray<StatusName>): (u: unknown) => u is GrpcError {
    return (u): u is GrpcError =>
      u instanceof GrpcError && (names.length === 0 || names.some((name) => statusCodes[name] === u.code))
  }

  /** The error of a status that came over the wire, with what its trailers tell in detail. */
  static fromStatus(status: StatusObject, method?: string): GrpcError {
    return new GrpcError({
      code: status.code,
      details: status.details,
      metadata: status.metadata,
      method,
      statusDetails: decode(status.metadata)
    })
  }

  /** The name of the code, or the code itself as text where gRPC has no name for it. */
  get status(): string {
    return statusCodes[this.code] ?? String(this.code)
  }

  override get message(): string {
    const where = this.method === undefined ? "" : ` in ${this.method}`
    return `gRPC status ${this.code} (${this.status})${where}: ${this.details}`
  }
}
