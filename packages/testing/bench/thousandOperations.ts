/** How long it takes to sweep a handler of a thousand operations: `node -C @curfew/source bench/thousandOperations.ts`. */

import { formatSweep, Probe, type SweepOptions, sweep } from "@curfew/testing"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"

const handler = {
  name: "a thousand operations",
  setup: Effect.gen(function* () {
    const connection = yield* Probe.resource("connection")
    const count = yield* Ref.make(0)
    const step = Effect.andThen(
      Ref.update(count, (n) => n + 1),
      Effect.map(Ref.get(count), (n) => n > 0)
    )
    return Effect.scoped(
      Effect.gen(function* () {
        yield* connection.scoped
        for (let i = 0; i < 245; i++) yield* step
      })
    )
  })
}

const timed = async (what: string, options: SweepOptions) => {
  const started = performance.now()
  const before = process.cpuUsage()
  const report = await Effect.runPromise(sweep(handler, options))
  const { system, user } = process.cpuUsage(before)
  const seconds = ((performance.now() - started) / 1000).toFixed(2)
  console.log(
    `${formatSweep(report)}\n  ${what}: ${seconds} s, ${((user + system) / 1e6).toFixed(2)} s of the processor`
  )
}

await timed("every mode by default", {})
await timed("one cancel, fresh and kept state", { modes: ["root"] })
await timed("any fiber", { modes: ["any"] })
await timed("twice", { modes: ["twice"] })
await timed("during finalizers", { modes: ["finalizers"] })
