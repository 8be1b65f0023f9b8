/** The handlers of the service, for either way to search. */
import { GrpcError, type MethodsOfHandlers, Server, type ServerCall } from "@curfew/grpc"
import { cancellable } from "@curfew/request"
import type { Owner } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { CallLog } from "./CallLog.ts"
import { type Found, type Job, problemWith } from "./search.ts"
import { type Candidate, type HashFinder, hashFinder, type Query } from "./service.ts"

/** Tries secrets until some are candidates, or all of the job were tried. Cancelled, it stops within a batch or two. */
export type Search = (job: Job, progress: Progress) => Effect.Effect<Found>

/** How far the search of a call has come. The search keeps it up to date, so that it is right after a cancel too. */
export interface Progress {
  tried: number
  /** The worker that had the last job, if workers search. */
  worker?: number
  /** How many hashes that worker still did when its flag was set. */
  pastTheFlag?: number
}

/** Hashes in one job. */
const jobSize = 65_536

export const hashFinderService = (
  search: Search,
  log: CallLog,
  limit: number
): Effect.Effect<Server.Service, never, Owner> => {
  const candidates = (query: Query, call: ServerCall.ServerCall): Stream.Stream<Candidate, GrpcError> => {
    const problem = problemWith(query)
    if (problem !== undefined) return Stream.fail(GrpcError.make("INVALID_ARGUMENT", problem))
    const progress: Progress = { tried: 0 }
    log.begins(call, query)
    let granted = 0
    const pages = Stream.paginate(0, (from) =>
      Effect.gen(function* () {
        // When nothing is left the server cancels the call here.
        if (granted === 0) granted = yield* call.budget.take(jobSize)
        const found = yield* search({ query, from, count: granted }, progress)
        granted -= found.tried
        return [found.candidates, found.ideal ? Option.none() : Option.some(from + found.tried)] as const
      })
    )
    // However it ends, cancelled included: by now the search has stopped.
    return Stream.ensuring(pages, log.ends(call, query, progress))
  }

  return Server.makeFor<MethodsOfHandlers<HashFinder>>()(
    hashFinder,
    {
      // Without the mark a unary handler would go on when its client has gone.
      Find: cancellable((query, call) =>
        candidates({ ...query, interestingDistance: query.idealDistance }, call).pipe(
          Stream.runHead,
          Effect.map(Option.getOrThrow)
        )
      ),
      FindEach: cancellable(candidates)
    },
    { limits: { work: limit } }
  )
}
