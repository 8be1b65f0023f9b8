/**
 * Ours beside its peers.
 *
 * Invariants:
 * 1. Every round measures ours and every peer equally often, one after the other, and who comes first changes with each
 *    turn: what the machine does beside the run reaches all of them alike.
 * 2. A ratio is taken within a round and the median over the rounds, never a ratio of two medians.
 * 3. A measurement that throws ends the run: there is no figure for a wrong result.
 */
import { progress } from "./progress.ts"
import { median, type Row } from "./row.ts"

export interface Contestant {
  readonly name: string
  /** One measurement. It checks what it got, and throws when that is wrong. */
  readonly measure: () => Promise<number>
}

export interface Peer extends Contestant {
  /** What the ratio to this one has to reach; default: the comparison's. */
  readonly target?: number
  /** Replaces the comparison's note in the row of this peer. */
  readonly note?: string | ((ours: number, peer: number) => string | undefined)
}

export interface Comparison {
  readonly row: string
  readonly unit: string
  readonly better: "higher" | "lower"
  readonly target: number
  /** Default: 5. */
  readonly rounds?: number | undefined
  /**
   * How many turns each has in a round; default: 1. The figure of a round is that of its turns together. More and shorter
   * turns bring what is compared closer together than a machine changes its speed.
   */
  readonly turns?: number | undefined
  /** Rounds before those that count, to warm up; default: none. */
  readonly warmups?: number
  readonly ours: Contestant
  readonly peers: ReadonlyArray<Peer>
  readonly note?: string
}

/**
 * The figure of turns together: the mean of times, and of rates the harmonic mean, which is the rate of all where each turn has
 * the same amount of work. Where each has the same time it is a little less, for all who are compared.
 */
const together = (figures: ReadonlyArray<number>, better: Comparison["better"]): number => {
  const sum = figures.reduce((all, one) => all + (better === "higher" ? 1 / one : one), 0)
  return better === "higher" ? figures.length / sum : sum / figures.length
}

export const compare = async (comparison: Comparison): Promise<ReadonlyArray<Row>> => {
  const { better, note, ours, peers, row, target, unit } = comparison
  const { rounds = 5, turns = 1, warmups = 0 } = comparison
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new Error(`"${row}" was asked for ${rounds} rounds; ask for a whole number from 1 on.`)
  const contestants = [ours, ...peers]
  const figures = contestants.map(() => [] as Array<number>)
  let first = 0
  for (let round = -warmups; round < rounds; round++) {
    progress(`${row}: ${round < 0 ? "warming up" : `round ${round + 1} of ${rounds}`}`)
    const taken = contestants.map(() => [] as Array<number>)
    for (let turn = 0; turn < turns; turn++, first++) {
      for (let i = 0; i < contestants.length; i++) {
        const at = (first + i) % contestants.length
        const { measure, name } = contestants[at] as Contestant
        const figure = await measure()
        if (!(figure > 0 && Number.isFinite(figure)))
          throw new Error(`"${row}": ${name} measured ${figure}; a figure has to be above zero.`)
        taken[at]?.push(figure)
      }
    }
    if (round >= 0) for (const [at, these] of taken.entries()) figures[at]?.push(together(these, better))
  }
  const own = figures[0] as ReadonlyArray<number>
  return peers.map((peer, index) => {
    const theirs = figures[index + 1] as ReadonlyArray<number>
    const ratios = own.map((figure, round) => {
      const other = theirs[round] as number
      return better === "higher" ? figure / other : other / figure
    })
    const [ourFigure, peerFigure] = [median(own), median(theirs)]
    const said = typeof peer.note === "function" ? peer.note(ourFigure, peerFigure) : (peer.note ?? note)
    return {
      row,
      ours: ourFigure,
      peer: peerFigure,
      peerName: peer.name,
      unit,
      ratio: median(ratios),
      range: [Math.min(...ratios), Math.max(...ratios)],
      target: peer.target ?? target,
      rounds,
      ...(said === undefined ? {} : { note: said })
    }
  })
}
