import type { ServerCall } from "@curfew/grpc"
import { describe } from "@curfew/reason"
import { Instant } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Progress } from "./handlers.ts"
import type { Query } from "./service.ts"

/** One line when a search begins and one when it has stopped. */
export class CallLog {
  readonly #print: (line: string) => void

  constructor(print: (line: string) => void) {
    this.#print = print
  }

  begins(call: ServerCall.ServerCall, query: Query): void {
    this.#print(`${nameOf(call, query)} begins`)
  }

  /** Runs when the search has stopped. */
  ends(call: ServerCall.ServerCall, query: Query, progress: Progress): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const reason = yield* call.reason
      const cancelledAt = yield* call.cancelledAt
      const { pastTheFlag, tried, worker } = progress
      const by = worker === undefined ? "" : ` by worker ${worker}`
      if (Option.isNone(reason) || Option.isNone(cancelledAt)) {
        this.#print(`${nameOf(call, query)} ends after ${tried} hashes${by}`)
        return
      }
      const after = ((yield* Instant.now) - cancelledAt.value).toFixed(1)
      const back =
        pastTheFlag === undefined
          ? ""
          : `; worker ${worker} is back after ${pastTheFlag} hashes past its flag`
      this.#print(
        `${nameOf(call, query)} cancelled: ${describe(reason.value)}; ` +
          `stopped after ${tried} hashes, ${after} ms after the cancel${back}`
      )
    })
  }
}

const nameOf = ({ id, method }: ServerCall.ServerCall, { desiredName }: Query): string =>
  `${id}  ${method.slice(method.lastIndexOf("/") + 1)} "${desiredName}"`
