import type { ServerCall, ServerCalls } from "@curfew/grpc"
import { describe } from "@curfew/reason"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Progress } from "./handlers.ts"
import type { Query } from "./service.ts"

/** One line when a search begins and one when it has stopped. */
export class CallLog {
  readonly #print: (line: string) => void
  readonly #cancelledAt = new Map<string, number>()

  constructor(print: (line: string) => void) {
    this.#print = print
  }

  /** Is told at once when a call is cancelled, while its search still runs. */
  readonly cancelled = ({ id, phase }: ServerCalls.CallCancelled): void => {
    if (phase !== "waiting") this.#cancelledAt.set(id, performance.now())
  }

  begins(call: ServerCall.ServerCall, query: Query): void {
    this.#print(`${nameOf(call, query)} begins`)
  }

  /** Runs when the search has stopped. */
  ends(call: ServerCall.ServerCall, query: Query, progress: Progress): Effect.Effect<void> {
    return Effect.map(call.reason, (reason) => {
      const { pastTheFlag, tried, worker } = progress
      const cancelledAt = this.#cancelledAt.get(call.id)
      this.#cancelledAt.delete(call.id)
      const by = worker === undefined ? "" : ` by worker ${worker}`
      if (Option.isNone(reason) || cancelledAt === undefined) {
        this.#print(`${nameOf(call, query)} ends after ${tried} hashes${by}`)
        return
      }
      const after = (performance.now() - cancelledAt).toFixed(1)
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
