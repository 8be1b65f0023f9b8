/** The client: one call, until it is answered or Ctrl-C cancels it. */
import { Client, GrpcError } from "@curfew/grpc"
import { CancelReason, describe } from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import { processSignals } from "@curfew/shutdown/Node"
import { credentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { clientAbout, clientFlags } from "./cli.ts"
import { readFlags } from "./flags.ts"
import { type Candidate, type HashFinder, hashFinder } from "./service.ts"

const { ideal, interesting, name, server, stream } = readFlags(clientAbout, clientFlags)
const query = { desiredName: name, idealDistance: ideal, interestingDistance: interesting }
const what = `${stream ? "FindEach" : "Find"} "${name}"`

const show = ({ distance, hash, secret }: Candidate): void =>
  console.log(`distance ${distance}  ${hash}  is the hash of "${secret}"`)

const call = Effect.gen(function* () {
  const finder = yield* Client.make<HashFinder>(hashFinder, {
    address: server,
    credentials: credentials.createInsecure()
  })
  if (stream) yield* Stream.runForEach(finder.FindEach(query), (found) => Effect.sync(() => show(found)))
  else show(yield* finder.Find(query))
})

const ctrlC: Effect.Effect<void> = Effect.callback((resume) => {
  const forget = processSignals(["SIGINT"]).subscribe(() => {
    forget()
    resume(Effect.void)
  })
  return Effect.sync(forget)
})

const began = performance.now()
const program = CancelScope.run((scope) =>
  Effect.raceFirst(
    Effect.scoped(call),
    Effect.andThen(
      ctrlC,
      Effect.andThen(scope.cancel(CancelReason.Requested({ message: "Ctrl-C" })), Effect.never)
    )
  )
).pipe(
  Effect.map((outcome) => {
    if (outcome._tag === "Done") return 0
    const seconds = ((performance.now() - began) / 1000).toFixed(1)
    console.log(`${what} was cancelled after ${seconds} s: ${describe(outcome.reason)}`)
    return 130
  }),
  Effect.catchIf(GrpcError.is(), ({ details, status }) => {
    const nobody = status === "UNAVAILABLE" && details.startsWith("No connection established")
    const start = "start a server: npm run -w @curfew/example-hash-finder server"
    console.error(
      nobody ? `Nobody listens at ${server}; ${start}` : `${what} ended with ${status}: ${details}`
    )
    return Effect.succeed(1)
  })
)

console.log(`${what} begins; Ctrl-C cancels it`)
process.exitCode = await Effect.runPromise(program)
