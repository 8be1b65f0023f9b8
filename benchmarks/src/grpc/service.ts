/**
 * The service that every stack serves and calls: `bytes` of BytesValue, a hundred of them, in both directions.
 *
 * Invariants
 * 1. On the wire all stacks say the same, metadata and time-out included. Where a stack lets a program hand bytes over
 *    it is handed bytes; only connect-es insists on messages.
 * 2. An answer is looked at where it arrives, byte by byte.
 */

const id = (bytes: Buffer): Buffer => bytes

const method = <const Req extends boolean, const Res extends boolean>(
  name: string,
  requestStream: Req,
  responseStream: Res
) => ({
  path: `/curfew.bench.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: id,
  requestDeserialize: id,
  responseSerialize: id,
  responseDeserialize: id
})

export const definition = {
  unary: method("Unary", false, false),
  many: method("Many", false, true),
  talk: method("Talk", true, true)
} as const

const size = 100

/** What is sent. */
export const value: Uint8Array = Uint8Array.from({ length: size }, (_, i) => i)

/** The same as a BytesValue. */
export const encoded: Buffer = Buffer.concat([Buffer.from([0x0a, size]), value])

export const headers: Readonly<Record<string, string>> = {
  authorization: "Bearer 0123456789abcdef0123456789abcdef",
  "x-request-id": "7c1d9a52-9d0f-4c53-a9a0-0e6d5e0e7a11",
  "x-tenant": "benchmarks"
}

/** How long each call may take. */
export const timeout = 10_000

/** How many messages a response stream has, and how many a conversation. */
export const streamed = 1_000

export const checkValue = (got: Uint8Array): void => {
  if (Buffer.compare(got, value) !== 0) throw new Error("An answer is not what was sent.")
}

export const checkEncoded = (got: Buffer): void => {
  if (!encoded.equals(got)) throw new Error("An answer is not what was sent.")
}

export const checkHeaders = (tenant: unknown, timeLeft: number): void => {
  if (tenant !== "benchmarks") throw new Error("A call came without its metadata.")
  if (!(timeLeft > 0 && timeLeft <= timeout + 1_000)) throw new Error("A call came without its deadline.")
}

/** The stacks. */
export const stacks = ["curfew", "grpc-js", "nice-grpc", "connect-node"] as const

export type Stack = (typeof stacks)[number]

export type Kind = "unary" | "many" | "talk"

/** What a client is asked to do. */
export interface Work {
  readonly kind: Kind
  readonly callers: number
  readonly calls: number
}
