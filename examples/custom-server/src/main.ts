/** Two commands: `primes 1000` and `note hello`. Ctrl-C ends the server in stages. */
import { appendFile } from "node:fs"
import { checkpoint, guard } from "@curfew/guard"
import { describe } from "@curfew/reason"
import { cancellable } from "@curfew/request"
import { runMain } from "@curfew/shutdown/Node"
import { SharedMap } from "@curfew/singleflight"
import * as Effect from "effect/Effect"
import { type Command, listen } from "./server.ts"

const [port = "7070", journal = "notes.txt"] = process.argv.slice(2)

const countPrimes = Effect.fnUntraced(function* (limit: number) {
  let [count, n] = [0, 2]
  yield* guard((why) => Effect.sync(() => console.log(`primes ${limit}: stopped at ${n}, ${describe(why)}`)))
  for (; n < limit; n++) {
    yield* checkpoint
    let divisor = 2
    while (divisor * divisor <= n && n % divisor !== 0) divisor++
    if (divisor * divisor > n) count++
  }
  return `${count} primes below ${limit}`
})

const note: Command = (text) =>
  Effect.callback((resume) =>
    appendFile(journal, `${text}\n`, (error) =>
      resume(error === null ? Effect.succeed("noted") : Effect.fail(`not noted, ${error.message}`))
    )
  )

const main = Effect.gen(function* () {
  // One run for all who ask for the same limit meanwhile; it ends with the last of them.
  const counts = yield* SharedMap.make(countPrimes, { name: "primes" })
  const primes: Command = (limit) =>
    /^\d{1,15}$/.test(limit)
      ? Effect.mapError(counts.get(Number(limit)), ({ message }) => message)
      : Effect.fail("write primes and a whole number of at most 15 digits")
  // Without a mark `note` is not torn by a client that leaves.
  const commands = new Map(Object.entries({ primes: cancellable(primes), note }))
  console.log(`Listens on 127.0.0.1:${yield* listen(Number(port), commands, console.log)}`)
  return yield* Effect.never
})
runMain(Effect.scoped(main), { name: "line server", drain: "20 seconds", force: "8 seconds" })
