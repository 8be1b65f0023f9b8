/**
 * What a call's credentials add to its metadata.
 *
 * **Invariants**
 * 1. A secret never travels over a connection that is not encrypted.
 * 2. Credentials that fail give a status, never a defect.
 */
import { type CallCredentials, status as Code, type Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { fromPromise } from "./bridge.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"

export const credentialsMetadata = (
  credentials: CallCredentials,
  call: { readonly secure: boolean; readonly host: string; readonly method: string }
): Effect.Effect<Metadata, RpcStatus> => {
  const { host, method, secure } = call
  if (!secure) {
    return Effect.fail(
      makeStatus(Code.UNAUTHENTICATED, "Call credentials need an encrypted connection below the tunnel")
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
