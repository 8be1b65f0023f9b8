import type { PeerCertificate } from "node:tls"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type { TunnelKind } from "./TunnelEvent.ts"

/**
 * Who wants to open a tunnel, as a network server sees it before it answers.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface TunnelOpening {
  readonly kind: TunnelKind
  /** The address of the other end of the outer call. */
  readonly peer: string
  /** The request headers of the outer call. */
  readonly metadata: Metadata
  /** Whether the outer call came over TLS. */
  readonly secure: boolean
  /**
   * The client's certificate, where TLS asked for one and it was verified against the server's authorities. Ask for it
   * with `ServerCredentials.createSsl(ca, pairs, true)`.
   */
  readonly certificate: PeerCertificate | undefined
}

/**
 * A tunnel as its calls' handlers know it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface TunnelOrigin<out I = unknown> extends TunnelOpening {
  /** What `authenticate` gave for this tunnel; `undefined` without that hook. */
  readonly identity: I
}

/**
 * A call that came through a tunnel and has not been let in yet.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CallToAuthorize<out I = unknown> {
  /** `/package.Service/Method`. */
  readonly method: string
  readonly metadata: Metadata
  readonly tunnel: TunnelOrigin<I>
}

/**
 * Somebody may not open a tunnel, or not make a call. The peer gets the code and the sentence.
 *
 * **Example**
 *
 * ```ts
 * import { AccessRefused } from "@curfew/tunnel"
 *
 * AccessRefused.permissionDenied("This agent has been retired").message // => "This agent has been retired"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export class AccessRefused extends /* @__PURE__ */ Data.TaggedError("AccessRefused")<{
  /** A gRPC status code. `OK` is no refusal, and sent as `PERMISSION_DENIED`. */
  readonly code: number
  readonly details: string
}> {
  override get message(): string {
    return this.details
  }

  /**
   * Nobody knows who this is: `UNAUTHENTICATED`.
   *
   * @since 0.1.0
   */
  static readonly unauthenticated = (details: string): AccessRefused =>
    new AccessRefused({ code: Code.UNAUTHENTICATED, details })

  /**
   * It is known who this is, and it may not: `PERMISSION_DENIED`.
   *
   * @since 0.1.0
   */
  static readonly permissionDenied = (details: string): AccessRefused =>
    new AccessRefused({ code: Code.PERMISSION_DENIED, details })
}

/**
 * Says who opens a tunnel, or refuses. Runs before the tunnel is accepted.
 *
 * **Guarantees**
 *
 * - **Bounded**: what takes longer than `authTimeout` is answered `UNAVAILABLE`.
 * - **Contained**: a defect is logged and answered `INTERNAL`; it costs this tunnel and nothing else.
 *
 * **When cancelled**
 *
 * Interrupted when the opener leaves and when the service ends; the peer gets its status once the hook has ended, within
 * the clean-up budget.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Authenticate<out I> = (opening: TunnelOpening) => Effect.Effect<I, AccessRefused>

/**
 * Lets one call in, or refuses it. Runs before the call's handler is told of the call.
 *
 * **Guarantees**
 *
 * - **Bounded**: what takes longer than `authTimeout` is answered `UNAVAILABLE`, and no longer than the call's deadline.
 * - **Contained**: a defect is logged and answered `INTERNAL`; it costs this call and nothing else.
 *
 * **When cancelled**
 *
 * Interrupted when the call is cancelled, when its deadline passes and when its tunnel ends.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Authorize<in I> = (call: CallToAuthorize<I>) => Effect.Effect<void, AccessRefused>
