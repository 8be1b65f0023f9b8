/** A process of its own for `node.test.ts`: the first argument says what is in it. */
import { background, bounded } from "@curfew/scope"
import { Shutdown } from "@curfew/shutdown"
import { runMain } from "@curfew/shutdown/Node"
import * as Effect from "effect/Effect"

const hang = Effect.never

const kinds = {
  idle: Effect.never,
  busy: Effect.andThen(background("POST /orders", Effect.sleep("100 millis")), Effect.never),
  "hanging finalizer": Effect.ensuring(Effect.never, bounded(hang, { name: "close the pool" })),
  "hanging finalizer without a bound": Effect.ensuring(Effect.never, hang),
  "masked hang": Effect.andThen(
    background("commit", Effect.uninterruptible(hang)),
    Effect.uninterruptible(hang)
  ),
  "slow drain": Effect.andThen(background("POST /slow", Effect.sleep("1 hour")), Effect.never),
  failing: Effect.fail("no port")
} as const

const [kind, drain = "400", force = "400", secondSignal = "force", signalWindow = "100"] =
  process.argv.slice(2)

const say = (text: string) => Effect.sync(() => process.stdout.write(`${text}\n`))

const main = Effect.scoped(
  Effect.gen(function* () {
    yield* Shutdown.onStop("listener", say("stopping"))
    yield* say("ready")
    return yield* kinds[kind as keyof typeof kinds]
  })
)

runMain(main, {
  drain: Number(drain),
  force: Number(force),
  secondSignal: secondSignal as "force" | "exit",
  signalWindow: Number(signalWindow)
})
