import { bounded, CancelScope, failAfter, Instant, moveOnAfter } from "@curfew/scope"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Effection from "effection"
import { effects, operations } from "../batches.ts"
import { library, ours, type Primitive, raw } from "../primitive.ts"
import { bodies, isResult, result } from "./work.ts"

const isSome = (value: Option.Option<number>): boolean => Option.isSome(value) && value.value === result

const [, atOnce] = bodies[0] as (typeof bodies)[number]

const raced = (): Effection.Operation<number> =>
  Effection.race<Effection.Operation<number>>([
    (function* () {
      yield* []
      return result
    })(),
    (function* () {
      yield* Effection.sleep(10_000)
      return 0
    })()
  ])

const limits: ReadonlyArray<Primitive> = bodies.flatMap(([name, work]) => [
  {
    row: `scope: failAfter, ${name}`,
    ours: ours(() => effects(() => failAfter(work, "10 seconds"), isResult)),
    peers: [
      raw("timeout", () => effects(() => Effect.timeout(work, "10 seconds"), isResult)),
      ...(name === "ends at once"
        ? [library("effection: race with sleep", () => operations(raced, isResult))]
        : [])
    ]
  },
  {
    row: `scope: moveOnAfter, ${name}`,
    ours: ours(() => effects(() => moveOnAfter(work, "10 seconds"), isSome)),
    peers: [raw("timeoutOption", () => effects(() => Effect.timeoutOption(work, "10 seconds"), isSome))]
  },
  {
    row: `scope: CancelScope.run with a deadline, ${name}`,
    ours: ours(() =>
      effects(
        () =>
          Effect.flatMap(Instant.after("10 seconds"), (deadline) =>
            CancelScope.run(() => work, { deadline })
          ),
        (value) => value._tag === "Done" && value.value === result
      )
    ),
    peers: [raw("timeoutOption", () => effects(() => Effect.timeoutOption(work, "10 seconds"), isSome))]
  }
])

export const rows: ReadonlyArray<Primitive> = [
  ...limits,
  {
    row: "scope: bounded",
    ours: ours(() => effects(() => Effect.uninterruptible(bounded(atOnce)), isSome)),
    peers: [
      raw("uninterruptible timeoutOption", () =>
        effects(() => Effect.uninterruptible(Effect.timeoutOption(atOnce, "10 seconds")), isSome)
      )
    ]
  },
  {
    row: "scope: Instant.after",
    ours: ours(() =>
      effects(
        () => Instant.after("1 second"),
        (at) => at > 1_000
      )
    ),
    peers: [
      raw("Clock.monotonicTimeNanos", () =>
        effects(
          () => Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6 + 1_000),
          (at) => at > 1_000
        )
      )
    ]
  }
]
