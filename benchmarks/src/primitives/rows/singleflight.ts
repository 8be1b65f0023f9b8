import { Owner } from "@curfew/scope"
import { Shared, SharedMap } from "@curfew/singleflight"
import * as Cache from "effect/Cache"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import pMemoize from "p-memoize"
import { promises, repeat, within } from "../batches.ts"
import { library, ours, type Primitive, raw } from "../primitive.ts"
import { bodies, isResult, result } from "./work.ts"

const owned = <A, E>(work: Effect.Effect<A, E, Owner | Scope.Scope>) =>
  Effect.provide(Effect.scoped(work), Owner.layer())

const minute = () => "1 minute" as const

let made = 0
/** A key that nobody has asked for yet. */
const fresh = (): number => made++

export const rows: ReadonlyArray<Primitive> = [
  ...bodies.map(
    ([name, work]): Primitive => ({
      row: `singleflight: Shared.get, a new run, ${name}`,
      ours: ours(() =>
        within((times) =>
          owned(Effect.flatMap(Shared.make(work), (shared) => repeat(times, () => shared.get, isResult)))
        )
      ),
      peers: [
        raw("cachedWithTTL of nothing", () =>
          within((times) =>
            Effect.flatMap(Effect.cachedWithTTL(work, 0), (get) => repeat(times, () => get, isResult))
          )
        ),
        ...(name === "ends at once"
          ? [
              library("p-memoize, not cached", () => {
                const get = pMemoize(async () => result, { cache: false })
                return promises(get, isResult)
              })
            ]
          : [])
      ]
    })
  ),
  {
    row: "singleflight: Shared.get, retained",
    ours: ours(() =>
      within((times) =>
        owned(
          Effect.flatMap(Shared.make(Effect.succeed(result), { retain: minute }), (shared) =>
            repeat(times, () => shared.get, isResult)
          )
        )
      )
    ),
    peers: [
      raw("cachedWithTTL", () =>
        within((times) =>
          Effect.flatMap(Effect.cachedWithTTL(Effect.succeed(result), "1 minute"), (cached) =>
            repeat(times, () => cached, isResult)
          )
        )
      ),
      library("p-memoize", () =>
        promises(
          pMemoize(async () => result),
          isResult
        )
      )
    ]
  },
  {
    row: "singleflight: SharedMap.get, retained",
    ours: ours(() =>
      within((times) =>
        owned(
          Effect.flatMap(
            SharedMap.make((key: string) => Effect.succeed(key.length), { retain: minute, capacity: 100 }),
            (shared) =>
              repeat(
                times,
                () => shared.get("four"),
                (value) => value === 4
              )
          )
        )
      )
    ),
    peers: [
      raw("Cache.get", () =>
        within((times) =>
          Effect.flatMap(
            Cache.make({
              capacity: 100,
              lookup: (key: string) => Effect.succeed(key.length),
              timeToLive: "1 minute"
            }),
            (cache) =>
              repeat(
                times,
                () => Cache.get(cache, "four"),
                (value) => value === 4
              )
          )
        )
      ),
      library("p-memoize", () => {
        const get = pMemoize(async (key: string) => key.length)
        return promises(
          () => get("four"),
          (value) => value === 4
        )
      })
    ]
  },
  {
    row: "singleflight: SharedMap.get, a new key each time",
    ours: ours(() =>
      within((times) =>
        owned(
          Effect.flatMap(
            SharedMap.make((key: number) => Effect.succeed(key), { retain: minute, capacity: 100 }),
            (shared) =>
              repeat(
                times,
                () => shared.get(fresh()),
                (value) => value === made - 1
              )
          )
        )
      )
    ),
    peers: [
      raw("Cache.get", () =>
        within((times) =>
          Effect.flatMap(
            Cache.make({
              capacity: 100,
              lookup: (key: number) => Effect.succeed(key),
              timeToLive: "1 minute"
            }),
            (cache) =>
              repeat(
                times,
                () => Cache.get(cache, fresh()),
                (value) => value === made - 1
              )
          )
        )
      )
    ]
  }
]
