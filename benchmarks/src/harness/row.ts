/** One line of a table: how ours did beside one peer, in the same run. */
export interface Row {
  readonly row: string
  readonly ours: number
  readonly peer: number
  readonly peerName: string
  /** Of `ours` and `peer`. */
  readonly unit: string
  /** Above 1 we are better: peer / ours for times and sizes, ours / peer for rates. The median of the rounds. */
  readonly ratio: number
  /** The smallest and the largest ratio of a round. */
  readonly range: readonly [number, number]
  /** What `ratio` has to reach. */
  readonly target: number
  readonly rounds: number
  /** What the limit is where a row is not reached, and whatever else a reader has to know. */
  readonly note?: string
}

export const reached = ({ ratio, target }: Row): boolean => ratio >= target

export const median = (values: ReadonlyArray<number>): number => {
  if (values.length === 0) throw new Error("There is no median of no values; measure at least one round.")
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2
}
