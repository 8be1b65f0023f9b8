import { loadPackageDefinition, type ServiceClientConstructor, type ServiceDefinition } from "@grpc/grpc-js"
import { loadSync } from "@grpc/proto-loader"
import { protoDirectory, protoFile } from "./protoPath.ts"

export interface Match {
  readonly value: Uint8Array
  readonly hash: string
  readonly distance: number
}

export interface FindRequest {
  readonly word: string
  readonly distance: number
  readonly max_hashes: number
}

export interface FindResponse {
  readonly match: Match
  readonly tried: number
}

export interface FindRangeRequest extends FindRequest {
  readonly count: number
  readonly page: number
}

export interface FindRangeResponse {
  readonly matches: ReadonlyArray<Match>
  readonly tried: number
}

const loaded = loadPackageDefinition(
  loadSync(`${protoDirectory}/${protoFile}`, { keepCase: true, defaults: true })
)

const namespace = (
  loaded["curfew"] as unknown as { example: { v1: { HashFinder: ServiceClientConstructor } } }
).example

/** The stock grpc-js stub. */
export const HashFinderClient: ServiceClientConstructor = namespace.v1.HashFinder

export const hashFinder: ServiceDefinition = HashFinderClient.service

/** The header under which the client names a call, so that the timeline can follow it through the processes. */
export const labelHeader = "x-curfew-call"
