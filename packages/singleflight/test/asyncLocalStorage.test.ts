import { AsyncLocalStorage } from "node:async_hooks"
import { Owner } from "@curfew/scope"
import { Shared } from "@curfew/singleflight"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"

const store = new AsyncLocalStorage<string>()
const inStore = Effect.sync(() => store.getStore())

/** Gets from shared work in three stores side by side, each in a program of its own, as requests do. */
const fromThree = <A>(work: Effect.Effect<A>) =>
  Effect.gen(function* () {
    const shared = yield* Shared.make(work)
    const requests = ["a", "b", "c"].map((name) =>
      store.run(name, () => Effect.runPromise(Effect.zip(shared.get, inStore)))
    )
    return yield* Effect.promise(() => Promise.all(requests))
  }).pipe(Effect.provide(Owner.layer()), (program) => store.run("maker", () => Effect.runPromise(program)))

describe("Node's AsyncLocalStorage", () => {
  it("L34: is no service: a run is in the store of the observer that started it, to its end", async () => {
    const looks = Effect.gen(function* () {
      const first = yield* inStore
      yield* Effect.sleep("1 millis")
      const afterSleep = yield* inStore
      yield* Effect.promise(() => Promise.resolve())
      return [first, afterSleep, yield* inStore]
    })
    const got = await fromThree(looks)
    expect(got.map(([seen]) => seen)).toEqual([
      ["a", "a", "a"],
      ["a", "a", "a"],
      ["a", "a", "a"]
    ])
  })

  it("L34: a snapshot of where the work was made keeps the observers' stores out", async () => {
    const got = await store.run("maker", () => {
      const atMake = AsyncLocalStorage.snapshot()
      return fromThree(Effect.promise(() => atMake(async () => store.getStore())))
    })
    expect(got.map(([seen]) => seen)).toEqual(["maker", "maker", "maker"])
  })
})
