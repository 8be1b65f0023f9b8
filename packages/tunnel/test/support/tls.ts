/** The certificates of the TLS tests, as grpc-js takes them. `fixtures/tls/make.sh` made them. */
import { readFileSync } from "node:fs"
import * as grpc from "@grpc/grpc-js"

const read = (name: string): Buffer => readFileSync(new URL(`../fixtures/tls/${name}`, import.meta.url))

export type Signed = "server" | "elsewhere" | "client" | "intruder"
export type Authority = "authority" | "stranger"

const pair = (name: Signed) => ({ private_key: read(`${name}.key`), cert_chain: read(`${name}.crt`) })

/** A server's end; with an authority for clients it demands their certificates. */
export const serving = (name: Signed, clients?: Authority): grpc.ServerCredentials =>
  grpc.ServerCredentials.createSsl(
    clients === undefined ? null : read(`${clients}.crt`),
    [pair(name)],
    clients !== undefined
  )

/** A client's end, which trusts an authority, and has a certificate where one is named. */
export const trusting = (servers: Authority, own?: Signed): grpc.ChannelCredentials => {
  const root = read(`${servers}.crt`)
  if (own === undefined) return grpc.credentials.createSsl(root)
  const { cert_chain, private_key } = pair(own)
  return grpc.credentials.createSsl(root, private_key, cert_chain)
}

/** The same for a tunnel's connection of its own, as `tls.connect` takes it. */
export const trustingOwn = (servers: Authority, own?: Signed) => {
  const ca = read(`${servers}.crt`)
  if (own === undefined) return { ca }
  const { cert_chain: cert, private_key: key } = pair(own)
  return { ca, cert, key }
}
