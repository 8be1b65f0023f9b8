/**
 * What a call's credentials add to its metadata.
 *
 * **Invariants**
 * 1. A secret travels over a connection that is not encrypted only where the program has said that it may.
 * 2. Credentials that fail give a status, never a defect.
 */
import { type CallCredentials, status as Code, type Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { fromPromise } from "./bridge.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"

export const credentialsMetadata = (
  credentials: CallCredentials,
  call: { readonly allowed: boolean; readonly host: string; readonly method: string }
): Effect.Effect<Metadata, RpcStatus> => {
  const { allowed, host, method } = call
  if (!allowed) {
    return Effect.fail(
      makeStatus(
        Code.UNAUTHENTICATED,
        "Call credentials need an encrypted connection below the tunnel: open it with TLS, or set insecureCredentials"
      )
    )
  }
  const service = method.slice(1, Math.max(1, method.lastIndexOf("/")))
  const where = { method_name: method, service_url: `https://${host}/${service}` }
  return Effect.mapError(
    fromPromise(() => credentials.generateMetadata(where)),
    (error) => {
      const detail = error instanceof Error ? error.message : String(error)
      return makeStatus(Code.UNAUTHENTICATED, `The call credentials gave no metadata: ${detail}`)
    }
  )
}
