/** The service of proto/hash_finder.proto, with the types that loading it at run time does not give. */
import { fileURLToPath } from "node:url"
import type { handleServerStreamingCall, handleUnaryCall, ServiceDefinition } from "@grpc/grpc-js"
import { loadSync } from "@grpc/proto-loader"

export interface Query {
  readonly desiredName: string
  readonly idealDistance: number
  readonly interestingDistance: number
}

export interface Candidate {
  readonly secret: string
  readonly hash: string
  readonly distance: number
}

/** Which sides stream: what `Client.make` and `Server.makeFor` need to know. */
export type HashFinder = {
  readonly Find: handleUnaryCall<Query, Candidate>
  readonly FindEach: handleServerStreamingCall<Query, Candidate>
}

const file = fileURLToPath(new URL("../proto/hash_finder.proto", import.meta.url))

export const hashFinder = loadSync(file, { defaults: true })[
  "curfew.hashfinder.v1.HashFinder"
] as ServiceDefinition
