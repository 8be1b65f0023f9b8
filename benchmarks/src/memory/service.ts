import { Metadata, type MethodDefinition, makeClientConstructor } from "@grpc/grpc-js"

const bytes = (value: Buffer): Buffer => value

const method = (name: string, streams: boolean): MethodDefinition<Buffer, Buffer> => ({
  path: `/benchmarks.Memory/${name}`,
  requestStream: streams,
  responseStream: streams,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes
})

/** `Echo` answers each message; `Wait` never answers. */
export const definition = {
  Echo: method("Echo", true) as MethodDefinition<Buffer, Buffer> & {
    readonly requestStream: true
    readonly responseStream: true
  },
  Wait: method("Wait", false) as MethodDefinition<Buffer, Buffer> & {
    readonly requestStream: false
    readonly responseStream: false
  }
} as const

export const Stub = makeClientConstructor(definition, "benchmarks.Memory")

/** What every call brings along. */
export const entries = {
  "x-request-id": "01890a5d-ac96-774b-bcce-b302099a8057",
  "x-tenant": "benchmarks",
  authorization: "Bearer abcdefghijklmnopqrstuvwxyz"
} as const

export const metadata = (): Metadata => {
  const made = new Metadata()
  for (const [key, value] of Object.entries(entries)) made.set(key, value)
  return made
}

/** A deadline that no row comes near. */
export const limit = 30 * 60_000

export const hello = Buffer.alloc(16, 7)

/**
 * How a stream goes: straight over grpc-js; or through a tunnel, with stubs and handlers of grpc-js, with neither but as
 * messages and callbacks, or with Curfew's own client and handlers.
 */
export type Kind = "direct" | "stubs" | "frames" | "effect"

/** Where a tunnel finds the entrance of a handler that takes messages and no call object. */
export const plainKey: symbol = Symbol.for("curfew.plain")
