/** What holds where Effect's fibers do not look as expected, and a run starts by public calls. */
import { currentReason } from "@curfew/reason"
import { Owner } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { expect, test, vi } from "vitest"
import { Shared } from "../src/index.ts"

vi.mock("../../reason/src/internal/delivery.ts", async (original) => ({
  ...(await original<typeof import("../../reason/src/internal/delivery.ts")>()),
  startKnown: () => undefined,
  startEntering: () => undefined
}))

const owned = <A, E>(work: Effect.Effect<A, E, Owner>): Promise<A> =>
  Effect.runPromise(Effect.provide(work, Owner.layer()))

test("a run has a scope, which closes before its observer is told, and what that fails with is its exit", async () => {
  const log: Array<string> = []
  const broken = new Error("no close")
  const exit = await owned(
    Effect.gen(function* () {
      const opens = yield* Shared.make(
        Effect.acquireRelease(
          Effect.sync(() => log.push("opened")),
          () => Effect.sync(() => log.push("closed"))
        )
      )
      yield* opens.get
      log.push("told")
      const breaks = yield* Shared.make(Effect.addFinalizer(() => Effect.die(broken)))
      return yield* Effect.exit(breaks.get)
    })
  )
  expect(log).toEqual(["opened", "closed", "told"])
  expect(exit).toEqual(Exit.die(broken))
})

test("its last observer's cancel ends it, with the reason", async () => {
  const log: Array<unknown> = []
  await owned(
    Effect.gen(function* () {
      const { get } = yield* Shared.make(
        Effect.onInterrupt(Effect.never, () =>
          Effect.map(currentReason, (reason) => log.push(Option.getOrThrow(reason)._tag))
        )
      )
      const observer = yield* Effect.forkChild(get, { startImmediately: true })
      yield* Fiber.interrupt(observer)
      yield* Effect.yieldNow
    })
  )
  expect(log).toEqual(["Unobserved"])
})
