/**
 * The client of the scenario. It calls through the gateway with a stock grpc-js stub and leaves in different ways.
 *
 * Invariants
 * 1. Steps wait for events: a page that came, a moment that another process told of. Nothing waits for time but the
 *    call that is to hit its deadline.
 * 2. A step ends when the backend's handler has ended and the stream has closed at both ends of the tunnel, so the
 *    next one finds everything at rest.
 */
import { CancelReason, describe } from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import { status as Code, credentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { endWith, type Sentence } from "../cli/Sentence.ts"
import { type CallFailed, find, findRange, type Stub } from "../grpc/calls.ts"
import { HashFinderClient, type Match } from "../grpc/hashFinder.ts"
import { countCalls } from "../grpc/interceptors.ts"
import { Process } from "../process/Process.ts"
import { plantStream } from "../process/plants.ts"
import { resource } from "../process/resource.ts"
import type { LastWords } from "../process/runProcess.ts"
import { counted } from "../report/counted.ts"

/** A word that no hash of this universe is likely to hold. */
const longWord = "unobtainable"

export const client = (options: {
  readonly gateway: string
  readonly plant: boolean
}): Effect.Effect<LastWords, Sentence, Process> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { meter, ready, say } = yield* Process
      const stub = yield* resource(
        "the connection to the gateway",
        Effect.sync(
          () =>
            new HashFinderClient(options.gateway, credentials.createInsecure(), {
              interceptors: [countCalls(meter)]
            })
        ),
        (it) => Effect.sync(() => it.close())
      )
      yield* ready({ text: "" })
      yield* answered(stub, "c1", "cat", 1)
      yield* answered(stub, "c2", "tea", 1)
      yield* answered(stub, "c3", "sun", 0)
      yield* completes(stub, "c4")
      yield* leavesInTheMiddle(stub, "c5")
      yield* leavesDuringTheAnswer(stub, "c6")
      yield* runsIntoItsDeadline(stub, "c7")
      yield* meetsTheLimit(stub, "c8")
      if (options.plant) {
        // No step of the plan: nobody waits for it or ends it. The gateway names what has no name.
        say({ mark: "step", call: "g1", text: "(planted) FindRange without an end that nobody cancels" })
        yield* plantStream(stub)
      }
      return () => 0
    })
  ).pipe(
    // A parent that is gone, or does not want the rest, ends the scenario wherever it stands.
    (scenario) =>
      Effect.flatMap(Process, ({ stop }) =>
        Effect.raceFirst(
          scenario,
          Effect.as(stop.requested, () => 130)
        )
      ),
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () => endWith("The scenario did not come to its end within 20 seconds.")
    })
  )

/** Tells of a call's begin and end, and waits until everybody behind the client has ended it too. */
const step = <A>(
  label: string,
  title: string,
  call: Effect.Effect<A, CallFailed, Process>,
  told: (result: A) => string
): Effect.Effect<void, never, Process> =>
  Effect.gen(function* () {
    const { awaitSignal, meter, now, say } = yield* Process
    say({ mark: "step", call: label, text: title })
    meter.count("calls")
    const began = now()
    yield* Effect.matchEffect(call, {
      onSuccess: (result) =>
        Effect.sync(() => say({ mark: "end", call: label, text: told(result), took: now() - began })),
      onFailure: ({ code, details }) =>
        Effect.sync(() =>
          say({
            mark: "end",
            call: label,
            text: `the call ends ${Code[code]}: ${details}`,
            took: now() - began
          })
        )
    })
    yield* awaitSignal({ name: "handler ended", call: label })
    yield* awaitSignal({ name: "called stream closed", call: label })
    yield* awaitSignal({ name: "calling stream closed", call: label })
  })

const quoted = (match: Match): string => `"${match.hash}"`

const answered = (stub: Stub, label: string, word: string, distance: number) =>
  step(
    label,
    `Find something like "${word}"`,
    Effect.tap(find(stub, { word, distance, max_hashes: 0 }, { label }), () =>
      Effect.map(Process, ({ meter }) => meter.count("answered"))
    ),
    ({ match, tried }) => `the answer, after ${counted(tried, "hash", "hashes")}: ${quoted(match)}`
  )

const completes = (stub: Stub, label: string, count = 1500, size = 500) =>
  step(
    label,
    "FindRange to its end",
    Effect.scoped(
      Effect.gen(function* () {
        const range = yield* findRange(
          stub,
          { word: "rest", distance: 1, max_hashes: 0, count, page: size },
          { label }
        )
        let pages = 0
        let matches = 0
        let tried = 0
        for (let page = yield* range.next; page !== undefined; page = yield* range.next) {
          pages++
          matches += page.matches.length
          tried = page.tried
        }
        // An answer is a whole one: a page that got lost shows in the numbers of `--once`.
        const { meter } = yield* Process
        if (tried === count && pages === Math.ceil(count / size)) meter.count("answered")
        return { pages, matches }
      })
    ),
    ({ matches, pages }) =>
      `the stream ends after ${counted(pages, "page", "pages")} with ${counted(matches, "match", "matches")}`
  )

/** Leaves with a reason: closes the call's scope, which cancels the call. */
const leave = (
  scope: CancelScope.CancelScope,
  label: string,
  message: string
): Effect.Effect<never, never, Process> =>
  Effect.flatMap(Process, ({ say }) => {
    const reason = CancelReason.Requested({ message })
    say({ mark: "cancel", call: label, text: `the client leaves: ${describe(reason)}` })
    return Effect.andThen(scope.cancel(reason), Effect.never)
  })

const outcomeOf = (outcome: CancelScope.Outcome<never>): string =>
  outcome._tag === "Cancelled" ? "the call has ended for the client" : "unexpected"

const leavesInTheMiddle = (stub: Stub, label: string) =>
  step(
    label,
    "FindRange without an end; the client leaves in the middle of the stream",
    CancelScope.run((scope) =>
      Effect.scoped(
        Effect.gen(function* () {
          const { say } = yield* Process
          const range = yield* findRange(
            stub,
            { word: "leave", distance: 3, max_hashes: 0, count: 0, page: 256 },
            { label }
          )
          for (let page = 1; page <= 3; page++) {
            const found = yield* range.next
            say({
              mark: "data",
              call: label,
              text: `page ${page}: ${counted(found?.matches.length ?? 0, "match", "matches")}`
            })
          }
          return yield* leave(scope, label, "three pages are enough")
        })
      )
    ),
    outcomeOf
  )

const leavesDuringTheAnswer = (stub: Stub, label: string) =>
  step(
    label,
    "FindRange with more to say than the client reads; the client leaves while a page is being written",
    CancelScope.run((scope) =>
      Effect.scoped(
        Effect.gen(function* () {
          const { awaitSignal, say } = yield* Process
          // Everything resembles one letter: every page is full, and a few of them fill every buffer on the way.
          const range = yield* findRange(
            stub,
            { word: "a", distance: 1, max_hashes: 0, count: 0, page: 1024 },
            { label }
          )
          yield* range.next
          yield* range.pause
          say({ mark: "data", call: label, text: "page 1; the client reads no further" })
          yield* awaitSignal({ name: "write waits", call: label })
          return yield* leave(scope, label, "it has no use for the rest")
        })
      )
    ),
    outcomeOf
  )

const runsIntoItsDeadline = (stub: Stub, label: string) =>
  step(
    label,
    "Find something that there is not, with a deadline of 150 ms",
    find(stub, { word: longWord, distance: 0, max_hashes: 0 }, { label, timeout: 150 }),
    () => "unexpected"
  )

const meetsTheLimit = (stub: Stub, label: string) =>
  step(
    label,
    "Find something that there is not, with at most 5000 hashes",
    find(stub, { word: longWord, distance: 0, max_hashes: 5_000 }, { label }),
    () => "unexpected"
  )
