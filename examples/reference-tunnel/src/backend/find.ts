/** The hash finder's two methods as Effects: cancellable at every checkpoint, and limited by the server. */
import { checkpoint } from "@curfew/guard"
import { CancelReason, describe } from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import { status as Code } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type {
  FindRangeRequest,
  FindRangeResponse,
  FindRequest,
  FindResponse,
  Match
} from "../grpc/hashFinder.ts"
import { CallTrace, inPhase, inScope, writingPhase } from "./CallTrace.ts"
import { GrpcStatus } from "./GrpcStatus.ts"
import { byDistance, judge, problemWith } from "./search.ts"

/** Hashes of one call, whatever the caller allows. */
const serverLimit = 50_000_000

/** Hashes between two looks at the clock. A few microseconds each: far less than a time slice. */
const betweenCheckpoints = 16

/** A call that has no page size gets this. */
const usualPage = 256
const largestPage = 4_096

export const find = (request: FindRequest): Effect.Effect<FindResponse, GrpcStatus, CallTrace> =>
  limited(request, (hashing) =>
    Effect.gen(function* () {
      for (let index = 0; ; index++) {
        yield* hashing(index)
        const match = judge(index, request.word)
        if (match.distance <= request.distance) return { match, tried: index + 1 }
      }
    })
  )

export const findRange = (
  request: FindRangeRequest,
  write: (page: FindRangeResponse) => Effect.Effect<void>
): Effect.Effect<void, GrpcStatus, CallTrace> =>
  limited(request, (hashing) =>
    Effect.gen(function* () {
      const end = request.count === 0 ? Number.POSITIVE_INFINITY : request.count
      const page = Math.min(request.page === 0 ? usualPage : request.page, largestPage)
      let matches: Array<Match> = []
      for (let index = 0; index < end; index++) {
        yield* hashing(index)
        const match = judge(index, request.word)
        if (match.distance <= request.distance) matches.push(match)
        const tried = index + 1
        if (tried % page !== 0 && tried !== end) continue
        yield* inPhase(writingPhase, write({ matches: byDistance(matches), tried }))
        matches = []
      }
    })
  )

/** Runs a search that asks before each hash: at the limit the server cancels the search itself, with that reason. */
const limited = <A>(
  request: FindRequest,
  search: (hashing: (index: number) => Effect.Effect<void>) => Effect.Effect<A, never, CallTrace>
): Effect.Effect<A, GrpcStatus, CallTrace> =>
  Effect.gen(function* () {
    const problem = problemWith(request.word)
    if (problem !== undefined) return yield* new GrpcStatus({ code: Code.INVALID_ARGUMENT, details: problem })
    const trace = yield* CallTrace
    const most = request.max_hashes === 0 ? serverLimit : Math.min(request.max_hashes, serverLimit)
    const outcome = yield* CancelScope.run(
      (scope) => {
        const atLimit = Effect.andThen(
          scope.cancel(CancelReason.LimitExceeded({ limit: `of ${most} hashes` })),
          Effect.never
        )
        const hashing = (index: number) =>
          index >= most ? atLimit : index % betweenCheckpoints === 0 ? checkpoint : Effect.void
        trace.phase = "while it hashed"
        return inScope("search", search(hashing))
      },
      { name: "search" }
    )
    if (outcome._tag === "Done") return outcome.value
    return yield* new GrpcStatus({
      code: Code.RESOURCE_EXHAUSTED,
      details: `The search was ended by the server: ${describe(outcome.reason)}.`,
      reason: outcome.reason
    })
  })
