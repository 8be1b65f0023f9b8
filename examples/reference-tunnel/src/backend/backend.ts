import type { UntypedHandleCall } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { Sentence } from "../cli/Sentence.ts"
import {
  type FindRangeRequest,
  type FindRangeResponse,
  type FindRequest,
  type FindResponse,
  hashFinder
} from "../grpc/hashFinder.ts"
import { listenOn } from "../grpc/server.ts"
import { shutDown } from "../process/ladder.ts"
import { Process } from "../process/Process.ts"
import { plantFiber } from "../process/plants.ts"
import type { LastWords } from "../process/runProcess.ts"
import { find, findRange } from "./find.ts"
import { makeHandlers } from "./handle.ts"

/** The hash finder behind everything: an ordinary gRPC server that knows nothing of tunnels. */
export const backend = (options: {
  readonly port: number
  readonly plant: boolean
}): Effect.Effect<LastWords, Sentence, Process> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { ready, stop, stopped } = yield* Process
      const handlers = yield* makeHandlers
      const server = yield* listenOn("the hash finder's server", {
        port: options.port,
        flag: "--port",
        register: (server) =>
          server.addService(hashFinder, {
            Find: handlers.unary<FindRequest, FindResponse>("Find", find) as UntypedHandleCall,
            FindRange: handlers.serverStream<FindRangeRequest, FindRangeResponse>(
              "FindRange",
              findRange
            ) as UntypedHandleCall
          })
      })
      if (options.plant) yield* plantFiber
      yield* ready({
        port: server.port,
        text: `The hash finder listens on 127.0.0.1:${server.port}. Ctrl-C ends it.`
      })
      yield* stop.requested
      yield* stopped(yield* shutDown({ calls: handlers.calls, refuse: server.refuse, force: server.force }))
      return () => 0
    })
  )
