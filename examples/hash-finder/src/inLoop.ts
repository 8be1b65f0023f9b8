import { checkpoint } from "@curfew/guard"
import * as Effect from "effect/Effect"
import type { Search } from "./handlers.ts"
import { batchSize, tryAll } from "./search.ts"

/**
 * Searches in the server's own thread. The checkpoint gives the event loop a turn in each time slice (5 ms): there the
 * server answers others and hears that a client has gone, and there a cancelled search ends.
 */
export const inLoop: Search = (job, progress) =>
  Effect.gen(function* () {
    for (let tried = 0; tried < job.count; ) {
      yield* checkpoint
      const count = Math.min(batchSize, job.count - tried)
      const found = tryAll({ ...job, from: job.from + tried, count })
      tried += found.tried
      progress.tried += found.tried
      if (found.candidates.length > 0) return { ...found, tried }
    }
    return { candidates: [], tried: job.count, ideal: false }
  })
