/**
 * Credentials out of files, and when plain text is refused.
 *
 * **Invariants**
 * 1. Files are read and checked before anything listens or dials: certificate, key and authorities go together.
 * 2. Plain text to or from another machine needs `--insecure`.
 */
import { createHash, timingSafeEqual } from "node:crypto"
import { readFileSync } from "node:fs"
import { createSecureContext } from "node:tls"
import { type ChannelCredentials, credentials, Metadata, ServerCredentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { BackendFlags, DialFlags } from "./flags.ts"
import { type Mistake, mistake } from "./mistake.ts"
import { type Address, isLoopback } from "./values.ts"

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  EACCES: "this user may not read it",
  EISDIR: "it is a directory"
}

const read = (flag: string, path: string): Effect.Effect<Buffer, Mistake> =>
  Effect.try({
    try: () => readFileSync(path),
    catch: (error) => {
      const { code = "", message } = error as NodeJS.ErrnoException
      return mistake(
        `${flag} cannot be read from ${path}: ${reasons[code] ?? message}; give the path of a PEM file.`
      )
    }
  })

const optional = (flag: string, path: string | undefined): Effect.Effect<Buffer | undefined, Mistake> =>
  path === undefined ? Effect.succeed(undefined) : read(flag, path)

interface Files {
  readonly cert: Buffer | undefined
  readonly key: Buffer | undefined
  readonly ca: Buffer | undefined
}

interface Paths {
  readonly cert: string | undefined
  readonly key: string | undefined
  readonly ca: string | undefined
}

const load = (prefix: string, paths: Paths): Effect.Effect<Files, Mistake> =>
  Effect.gen(function* () {
    if ((paths.cert === undefined) !== (paths.key === undefined)) {
      const [given, missing] = paths.cert === undefined ? ["key", "cert"] : ["cert", "key"]
      return yield* mistake(
        `--${prefix}tls-${given} needs --${prefix}tls-${missing} beside it; give both files.`
      )
    }
    const cert = yield* optional(`--${prefix}tls-cert`, paths.cert)
    const key = yield* optional(`--${prefix}tls-key`, paths.key)
    const ca = yield* optional(`--${prefix}tls-ca`, paths.ca)
    yield* Effect.try({
      try: () => createSecureContext({ cert, key, ca }),
      catch: (error) => {
        const { message } = error as Error
        const files = Object.values(paths).filter((path) => path !== undefined)
        return mistake(
          `The files ${files.join(", ")} are no certificate, key or authorities that go together (${message}); give PEM files of one pair.`
        )
      }
    })
    return { cert, key, ca }
  })

/** Credentials of a port that listens. */
export const serverCredentials = (options: {
  readonly flag: string
  readonly prefix: string
  readonly at: Address
  readonly paths: Paths
  readonly insecure: boolean
}): Effect.Effect<ServerCredentials, Mistake> =>
  Effect.gen(function* () {
    const { at, flag, insecure, paths, prefix } = options
    const { ca, cert, key } = yield* load(prefix, paths)
    if (cert === undefined || key === undefined) {
      if (ca !== undefined) {
        return yield* mistake(`--${prefix}tls-ca needs --${prefix}tls-cert and --${prefix}tls-key beside it.`)
      }
      if (isLoopback(at) || insecure) return ServerCredentials.createInsecure()
      return yield* mistake(
        `${flag} ${at.text} would be reached by other machines in plain text: give --${prefix}tls-cert and --${prefix}tls-key, or --insecure if that is meant.`
      )
    }
    return ServerCredentials.createSsl(ca ?? null, [{ cert_chain: cert, private_key: key }], ca !== undefined)
  })

/** Credentials for the gateway. */
export const dialCredentials = (at: Address, flags: DialFlags): Effect.Effect<ChannelCredentials, Mistake> =>
  Effect.gen(function* () {
    const { ca, cert, key } = yield* load("", { cert: flags.tlsCert, key: flags.tlsKey, ca: flags.tlsCa })
    if (flags.tls || ca !== undefined || cert !== undefined) {
      return credentials.createSsl(ca ?? null, key ?? null, cert ?? null)
    }
    if (isLoopback(at) || flags.insecure) return credentials.createInsecure()
    return yield* mistake(
      `The gateway ${at.text} is on another machine: give --tls or --tls-ca, or --insecure for plain text if that is meant.`
    )
  })

/** Credentials for a backend: it usually is on this machine or in its network, and speaks plain text. */
export const backendCredentials = (flags: BackendFlags): Effect.Effect<ChannelCredentials, Mistake> =>
  Effect.gen(function* () {
    const ca = yield* optional("--backend-ca", flags.backendCa)
    if (ca !== undefined) {
      yield* Effect.try({
        try: () => createSecureContext({ ca }),
        catch: () =>
          mistake(`--backend-ca ${flags.backendCa} has no certificates; give the path of a PEM file.`)
      })
    }
    return flags.backendTls || ca !== undefined
      ? credentials.createSsl(ca ?? null)
      : credentials.createInsecure()
  })

const digest = (text: string): Buffer => createHash("sha256").update(text).digest()

const tokenKey = "authorization"

export const agentKey = "curfew-agent"

/** What the one who dials says of itself. */
export const hello = (token: string | undefined, key?: string): Metadata => {
  const metadata = new Metadata()
  if (key !== undefined) metadata.set(agentKey, key)
  if (token !== undefined) metadata.set(tokenKey, `Bearer ${token}`)
  return metadata
}

/** Whether the metadata has the token. It takes as long for a wrong one as for the right one. */
export const hasToken = (token: string): ((metadata: Metadata) => boolean) => {
  const right = digest(`Bearer ${token}`)
  return (metadata) => {
    const [given] = metadata.get(tokenKey)
    return timingSafeEqual(digest(typeof given === "string" ? given : ""), right)
  }
}
