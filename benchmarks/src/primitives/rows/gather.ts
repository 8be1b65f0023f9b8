import { gather } from "@curfew/gather"
import * as Effect from "effect/Effect"
import * as Effection from "effection"
import { effects, operations } from "../batches.ts"
import { library, ours, type Primitive, raw } from "../primitive.ts"
import { bodies, result } from "./work.ts"

const many = 10

const areResults = (values: ReadonlyArray<number>): boolean =>
  values.length === many && values[0] === result && values[many - 1] === result

const plain = function* (): Effection.Operation<number> {
  yield* []
  return result
}

export const rows: ReadonlyArray<Primitive> = bodies.flatMap(([name, work]): ReadonlyArray<Primitive> => {
  const items = Array.from({ length: many }, () => work)
  return [
    {
      row: `gather: ${many} items, ${name}`,
      ours: ours(() => effects(() => gather(items), areResults)),
      peers: [
        raw("all, unbounded", () =>
          effects(() => Effect.all(items, { concurrency: "unbounded" }), areResults)
        ),
        ...(name === "ends at once"
          ? [
              library("effection: all", () =>
                operations(() => Effection.all(Array.from({ length: many }, plain)), areResults)
              )
            ]
          : [])
      ]
    },
    {
      row: `gather: ${many} items, 4 at once, ${name}`,
      ours: ours(() => effects(() => gather(items, { concurrency: 4 }), areResults)),
      peers: [
        raw("all, concurrency 4", () => effects(() => Effect.all(items, { concurrency: 4 }), areResults))
      ]
    }
  ]
})
