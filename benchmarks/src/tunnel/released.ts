/** From a client's cancel until it has the handler's *released*, beside a round trip in the same tunnel. */
import { type Options, wanted } from "../harness/options.ts"
import type { Row } from "../harness/row.ts"
import { names, withPairs } from "./common.ts"
import { inRounds, rowOf } from "./rounds.ts"

const row = (share: string): string => `client cancel until the handler's released, ${share}: ${names.effect}`

const shares = [
  { name: "p50", ours: "releasedP50", peer: "roundTripP50" },
  { name: "p99", ours: "releasedP99", peer: "roundTripP99" }
] as const

export const releasedRows = async (options: Options): Promise<ReadonlyArray<Row>> => {
  const chosen = shares.filter(({ name }) => wanted(options, row(name)))
  if (chosen.length === 0) return []
  return withPairs(options, ["effect"], async ({ effect }) => {
    await effect.releases(200)
    const { released } = await inRounds("client cancel until released", options.rounds ?? 5, {
      released: () => effect.releases(options.calls ?? 1_000)
    })
    return chosen.map(({ name, ours, peer }) =>
      rowOf({
        row: row(name),
        unit: "µs",
        better: "lower",
        target: 1 / 1.2,
        peerName: "a unary call in the same tunnel",
        ours: released.map((each) => each[ours]),
        peer: released.map((each) => each[peer]),
        note: "the finalizer of the call's scope lets a call answer that waits for it in the same tunnel; the two take turns"
      })
    )
  })
}
