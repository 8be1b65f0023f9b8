/** More than one fiber may read the requests of a call. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { turns } from "../src/internal/turns.ts"
import { call, echo, notebook, type Requests, run, serving, transports } from "./support/serving.ts"

type Reader = Fiber.Fiber<void>

const letters = ["q", "r", "s", "t", "u"]

describe.each(transports)("the readers of one request stream, over %s", (transport) => {
  /** What comes of a call that sends the letters one by one, each when the one before has been read. */
  const upload = (
    ClientStream: (requests: Requests, note: (text: string) => void) => Effect.Effect<string>
  ) =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { stub } = yield* serving(transport, {
          ...echo,
          ClientStream: (requests) => ClientStream(requests, book.note)
        })
        const started = call(stub, "ClientStream", { request: letters[0] as string })
        for (const letter of letters.slice(1)) {
          yield* book.until(() => book.seen.length === letters.indexOf(letter))
          // Whoever reads waits again by then.
          yield* turns(3)
          started.call.write?.(letter)
        }
        yield* book.until(() => book.seen.length === letters.length)
        yield* turns(3)
        started.call.end?.()
        const { code, messages } = yield* started.answer
        expect(code).toBe(0)
        expect([...book.seen].sort()).toEqual(letters)
        return messages
      })
    )

  const reading = (requests: Requests, note: (text: string) => void) =>
    Effect.orDie(Stream.runForEach(requests, (text) => Effect.sync(() => note(text))))

  test("share what comes, and all hear of the end", async () => {
    const answers = await upload((requests, note) =>
      Effect.as(
        Effect.all(
          [1, 2, 3].map(() => reading(requests, note)),
          { concurrency: "unbounded" }
        ),
        "all ended"
      )
    )
    expect(answers).toEqual(["all ended"])
  })

  test("go on without those that are interrupted while they wait", async () => {
    const answers = await upload((requests, note) =>
      Effect.gen(function* () {
        const readers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(reading(requests, note)))
        yield* turns(2)
        const [first, second, third] = readers as [Reader, Reader, Reader]
        yield* Fiber.interrupt(third)
        yield* Fiber.interrupt(first)
        yield* Fiber.join(second)
        return "ended"
      })
    )
    expect(answers).toEqual(["ended"])
  })
})
