/**
 * What the calls of one method share.
 *
 * Invariants
 * 1. It is made once, when the service is made; nothing of it changes with a call.
 */
import type { OnDisconnect } from "@curfew/request"
import type { Owner } from "@curfew/scope"
import type { MethodDefinition } from "@grpc/grpc-js"
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import type { ServerOptions } from "../../Server.ts"
import type { MethodKind } from "../../Service.ts"
import type { CallState } from "./callState.ts"
import type { CallTable } from "./callTable.ts"
import type { ResolvedLimits } from "./limits.ts"
import { Encoded } from "./requests.ts"
import type { MethodMetrics } from "./telemetry.ts"

export type AnyHandler = (request: unknown, call: CallState) => unknown
export type AnyDefinition = MethodDefinition<unknown, unknown>
export type Options = ServerOptions<never>

/** Everything that the calls of one method share. */
export interface MethodSpec {
  readonly definition: AnyDefinition
  readonly handler: AnyHandler
  readonly kind: MethodKind
  readonly options: Options
  readonly limits: ResolvedLimits
  readonly table: CallTable
  readonly context: Context.Context<never>
  readonly clock: Clock.Clock
  readonly owner: Owner["Service"]
  /** The handler's mark. */
  readonly policy: OnDisconnect | undefined
  /** A tracer was provided. */
  readonly traced: boolean
  readonly metrics: { readonly grpc: MethodMetrics; readonly tunnel: MethodMetrics }
}

export const kindOf = ({ requestStream, responseStream }: AnyDefinition): MethodKind =>
  requestStream ? (responseStream ? "bidi" : "clientStream") : responseStream ? "serverStream" : "unary"

/** The definition as the transport gets it: the call itself runs the codecs. */
export const passingThrough = (method: AnyDefinition): AnyDefinition => ({
  ...method,
  requestDeserialize: (bytes: Buffer) => new Encoded(bytes),
  responseSerialize: (bytes) => bytes as Buffer
})

export const streams = (kind: MethodKind): boolean => kind === "bidi" || kind === "serverStream"
