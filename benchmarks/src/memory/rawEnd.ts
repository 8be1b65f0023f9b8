/**
 * What Effect itself keeps for the streams of a call, without a call, in a process of its own: responses that somebody
 * reads, requests that somebody sends, and a handler's stream over a pull, with a finalizer. Nobody can have less for the same.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { answer, collect } from "../harness/child.ts"
import { hello } from "./service.ts"

/** What comes as a pull: one message, and then nothing more. */
const pulled = (): Stream.Stream<Buffer> => {
  let first = true
  const pull = Effect.suspend(() => {
    if (!first) return Effect.callback<readonly [Buffer]>(() => undefined)
    first = false
    return Effect.succeed([hello] as const)
  })
  return Stream.fromPull(Effect.succeed(pull))
}

let seen = 0

const count = (): Effect.Effect<void> =>
  Effect.sync(() => {
    seen++
  })

const requests = Stream.concat(Stream.make(hello), Stream.never)

const held = Effect.acquireRelease(count(), count)

const opened = (): ReadonlyArray<Fiber.Fiber<void>> => [
  Effect.runFork(Stream.runForEach(pulled(), count)),
  Effect.runFork(Stream.runForEach(requests, count)),
  Effect.runFork(Stream.runForEach(Stream.unwrap(Effect.as(held, pulled())), count))
]

answer({
  /** Bytes of heap for the three of them. */
  heap: async (calls: number): Promise<number> => {
    for (let i = 0; i < 500; i++) await Effect.runPromise(Fiber.interruptAll(opened()))
    await collect()
    seen = 0
    const before = process.memoryUsage().heapUsed
    const all: Array<Fiber.Fiber<void>> = []
    for (let i = 0; i < calls; i++) all.push(...opened())
    await collect()
    const bytes = (process.memoryUsage().heapUsed - before) / calls
    if (seen !== calls * 4) throw new Error(`A wrong result: ${seen} messages of ${calls * 4} were seen.`)
    await Effect.runPromise(Fiber.interruptAll(all))
    return bytes
  }
})
