import { CancelReason, describe } from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import { status as Code, credentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { type Command, usual } from "../cli/parseArguments.ts"
import { endWith, type Sentence } from "../cli/Sentence.ts"
import { type CallFailed, find, findRange } from "../grpc/calls.ts"
import { HashFinderClient, type Match } from "../grpc/hashFinder.ts"
import { countCalls } from "../grpc/interceptors.ts"
import { Process } from "../process/Process.ts"
import { resource } from "../process/resource.ts"
import type { LastWords } from "../process/runProcess.ts"
import { counted } from "../report/counted.ts"

/** One call by hand. Ctrl-C leaves: the call is cancelled, all the way to the hash finder. */
export const call = (
  options: Extract<Command, { _tag: "call" }>
): Effect.Effect<LastWords, Sentence, Process> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { meter, stop } = yield* Process
      const stub = yield* resource(
        "the connection",
        Effect.sync(
          () =>
            new HashFinderClient(options.gateway, credentials.createInsecure(), {
              interceptors: [countCalls(meter)]
            })
        ),
        (it) => Effect.sync(() => it.close())
      )
      const show = table()
      const named = { timeout: options.timeout }
      const request = { word: options.word, distance: options.distance, max_hashes: options.maxHashes }
      const work: Effect.Effect<void, CallFailed, Process> = options.range
        ? Effect.scoped(
            Effect.gen(function* () {
              const range = yield* findRange(stub, { ...request, count: options.count, page: 0 }, named)
              for (let page = yield* range.next; page !== undefined; page = yield* range.next) {
                for (const match of page.matches) show(match)
              }
            })
          )
        : Effect.map(find(stub, request, named), ({ match, tried }) => {
            show(match)
            console.log(`${counted(tried, "hash", "hashes")} tried`)
          })
      const leaving = CancelReason.Requested({ message: "the person at the keyboard leaves" })
      const outcome = yield* CancelScope.run((scope) =>
        Effect.raceFirst(
          work,
          Effect.andThen(
            stop.requested,
            Effect.suspend(() => Effect.andThen(scope.cancel(leaving), Effect.never))
          )
        )
      ).pipe(
        Effect.catchTag("CallFailed", ({ code, details }) =>
          endWith(
            code === Code.UNAVAILABLE && details.startsWith("No connection established")
              ? unreachable(options.gateway)
              : `${Code[code]}: ${details}`
          )
        )
      )
      if (outcome._tag === "Done") return () => 0
      console.log(`The call is cancelled: ${describe(outcome.reason)}.`)
      return () => 130
    })
  )

const unreachable = (gateway: string): string =>
  `No gateway can be reached at ${gateway}. \`npm run reference\` prints the port it took (or give it one: ` +
  `\`npm run reference -- --port=${usual.gateway}\`); then: npm run reference -- call --gateway=127.0.0.1:PORT`

/** Prints matches in columns, with a head over the first. */
const table = (): ((match: Match) => void) => {
  let headed = false
  const row = (distance: string, hash: string, value: string) =>
    console.log(`${distance.padStart(8)}  ${hash.padEnd(44)}  ${value}`)
  return ({ distance, hash, value }) => {
    if (!headed) row("distance", "SHA-256 in base64", "of these bytes")
    headed = true
    row(String(distance), hash, Buffer.from(value).toString("hex") || "(empty)")
  }
}
