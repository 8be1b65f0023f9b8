/** A process of its own for `inspectOnSignal.test.ts`: it does what it is told on its input, and shows what lives. */
import { background, CancelScope } from "@curfew/scope"
import { Shutdown } from "@curfew/shutdown"
import { runMain } from "@curfew/shutdown/Node"
import * as Effect from "effect/Effect"

const json = process.argv[2] === "json"

const say = (text: string) => Effect.sync(() => process.stdout.write(`${text}\n`))

const nextWord = Effect.callback<string>((resume) => {
  const heard = (chunk: Buffer) => resume(Effect.succeed(chunk.toString().trim()))
  process.stdin.once("data", heard)
  return Effect.sync(() => process.stdin.off("data", heard))
})

const main = Effect.scoped(
  Effect.gen(function* () {
    yield* background("POST /orders", Effect.never)
    yield* Shutdown.onStop("listener", say("stopping"))
    yield* say(`ready, ${process.listenerCount("SIGUSR2")} listening`)
    const serving = Effect.forever(Effect.flatMap(nextWord, (word) => say(`did ${word}`)))
    return yield* CancelScope.run(() => serving, { name: "serving" })
  })
)

// What is left when the process ends tells whether anybody still listens.
process.on("exit", () => process.stdout.write(`${process.listenerCount("SIGUSR2")} listening at the end\n`))

runMain(main, {
  drain: "60 seconds",
  force: "1 second",
  inspectOnSignal: json ? { json } : true
})
