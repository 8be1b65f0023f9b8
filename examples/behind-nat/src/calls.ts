/** What a client does with the gateway: an ordinary gRPC client, which knows nothing of tunnels. */

import { fileURLToPath } from "node:url"
import { Client, type GrpcError } from "@curfew/grpc"
import type { handleServerStreamingCall, handleUnaryCall } from "@grpc/grpc-js"
import { credentials, Metadata, type ServiceDefinition } from "@grpc/grpc-js"
import { loadSync } from "@grpc/proto-loader"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

interface Query {
  readonly desiredName: string
  readonly idealDistance: number
  readonly interestingDistance: number
}

interface Candidate {
  readonly secret: string
  readonly hash: string
  readonly distance: number
}

type HashFinder = {
  readonly Find: handleUnaryCall<Query, Candidate>
  readonly FindEach: handleServerStreamingCall<Query, Candidate>
}

const proto = fileURLToPath(new URL("../../hash-finder/proto/hash_finder.proto", import.meta.url))
const definition = loadSync(proto, { defaults: true })["curfew.hashfinder.v1.HashFinder"] as ServiceDefinition

const naming = (key: string): { readonly metadata: Metadata } => {
  const metadata = new Metadata()
  metadata.set("curfew-agent", key)
  return { metadata }
}

const endless = { desiredName: "theneedleinthehaystack", idealDistance: 0, interestingDistance: 20 }

export interface Calls {
  /** One answer through the tunnel. */
  readonly answered: Effect.Effect<string, GrpcError>
  /** A stream without an end, left after its first message. */
  readonly left: Effect.Effect<string, GrpcError>
  /** A call to an agent that is not there: the sentence that it gets. */
  readonly refused: Effect.Effect<string>
}

export const callsTo = (gateway: string): Effect.Effect<Calls, GrpcError, Scope.Scope> =>
  Effect.map(
    Client.make<HashFinder>(definition, { address: gateway, credentials: credentials.createInsecure() }),
    (client) => {
      const query = { desiredName: "ab", idealDistance: 0, interestingDistance: 0 }
      return {
        answered: Effect.map(
          client.Find(query, naming("home")),
          ({ hash, secret }) => `${hash} is the hash of "${secret}", and has "ab" in it`
        ),
        left: Effect.map(
          Stream.runCollect(Stream.take(client.FindEach(endless, naming("home")), 1)),
          ([first]) => `the first of many is ${first?.hash}; the client leaves`
        ),
        refused: Effect.match(client.Find(query, naming("office")), {
          onSuccess: () => "",
          onFailure: ({ details, status }) => `${status}: ${details}`
        })
      }
    }
  )
