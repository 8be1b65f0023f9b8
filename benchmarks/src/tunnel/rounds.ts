/**
 * Several contestants and several figures from each measurement, where one comparison is not enough.
 *
 * Invariants:
 * 1. Every round measures every contestant once, and who comes first changes with each round.
 * 2. A ratio is taken within a round, and the median over the rounds.
 */
import { progress } from "../harness/progress.ts"
import { median, type Row } from "../harness/row.ts"

export const inRounds = async <K extends string, A>(
  title: string,
  rounds: number,
  contestants: Readonly<Record<K, () => Promise<A>>>
): Promise<Readonly<Record<K, ReadonlyArray<A>>>> => {
  const all = Object.entries(contestants) as unknown as ReadonlyArray<readonly [K, () => Promise<A>]>
  const results = Object.fromEntries(all.map(([name]) => [name, []])) as unknown as Record<K, Array<A>>
  for (let round = 0; round < rounds; round++) {
    progress(`${title}: round ${round + 1} of ${rounds}`)
    for (let turn = 0; turn < all.length; turn++) {
      const [name, measure] = all[(turn + round) % all.length] as [K, () => Promise<A>]
      results[name].push(await measure())
    }
  }
  return results
}

interface Figures {
  readonly row: string
  readonly unit: string
  readonly better: "higher" | "lower"
  readonly target: number
  readonly peerName: string
  /** By round. */
  readonly ours: ReadonlyArray<number>
  readonly peer: ReadonlyArray<number>
  readonly note?: string | undefined
}

export const rowOf = ({ better, note, ours, peer, peerName, row, target, unit }: Figures): Row => {
  const ratios = ours.map((figure, round) => {
    const other = peer[round] as number
    if (!(figure > 0 && other > 0 && Number.isFinite(figure / other)))
      throw new Error(`"${row}" measured ${figure}, and ${peerName} ${other}; figures have to be above zero.`)
    return better === "higher" ? figure / other : other / figure
  })
  return {
    row,
    ours: median(ours),
    peer: median(peer),
    peerName,
    unit,
    ratio: median(ratios),
    range: [Math.min(...ratios), Math.max(...ratios)],
    target,
    rounds: ours.length,
    ...(note === undefined ? {} : { note })
  }
}
