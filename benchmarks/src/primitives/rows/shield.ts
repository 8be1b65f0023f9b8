import { Owner } from "@curfew/scope"
import { delayCancellation, stopCancellation } from "@curfew/shield"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { effects, repeat, within } from "../batches.ts"
import { ours, type Primitive, raw } from "../primitive.ts"
import { bodies, isResult } from "./work.ts"

const now = { startImmediately: true } as const

export const rows: ReadonlyArray<Primitive> = bodies.flatMap(([name, work]) => [
  {
    row: `shield: delayCancellation, ${name}`,
    ours: ours(() => effects(() => delayCancellation(work), isResult)),
    peers: [
      raw("uninterruptibleMask, forkChild, Fiber.join", () =>
        effects(
          () =>
            Effect.uninterruptibleMask((restore) =>
              Effect.flatMap(Effect.forkChild(restore(work), now), Fiber.join)
            ),
          isResult
        )
      )
    ]
  },
  {
    row: `shield: stopCancellation, ${name}`,
    ours: ours(() =>
      effects(
        () => stopCancellation(work),
        isResult,
        (loop) => Effect.provide(loop, Owner.layer())
      )
    ),
    peers: [
      raw("forkIn, Fiber.join", () =>
        within((times) =>
          Effect.scopedWith((scope) =>
            repeat(times, () => Effect.flatMap(Effect.forkIn(work, scope, now), Fiber.join), isResult)
          )
        )
      )
    ]
  }
])
