/** What the gate expects, and whether it got it. Nothing here measures. */

export interface Expected {
  readonly row: string
  /** The ratio of the peer's processor time to ours, when the figures were written. */
  readonly published: number
  /** What it must not fall below: {@link share} of it, because such machines swing twofold. */
  readonly floor: number
}

/** `benchmarks/gate.json`. */
export interface Expectations {
  readonly rows: ReadonlyArray<Expected>
  /** Bytes of each exported primitive. */
  readonly sizes: Readonly<Record<string, number>>
}

const share = 0.6

/** How much an export may grow before somebody has to say that it may. */
const growth = 0.05

/** The least that counts as growth: five percent of the smallest exports is the length of a name. */
const leastGrowth = 20

const digits = (value: number): number => Number(value.toPrecision(3))

export const expected = (row: string, ratio: number): Expected => ({
  row,
  published: digits(ratio),
  floor: digits(share * ratio)
})

export interface Verdict {
  readonly row: string
  readonly passed: boolean
  /** A sentence, where it did not pass. */
  readonly because?: string
}

const rewrite = "run `npm run bench:gate -- --write` on an idle machine and commit benchmarks/gate.json"

export const judgeRatio = (row: string, ratio: number, expectations: ReadonlyArray<Expected>): Verdict => {
  const wanted = expectations.find((one) => one.row === row)
  if (wanted === undefined)
    return { row, passed: false, because: `${row} has no published ratio: ${rewrite}.` }
  if (ratio >= wanted.floor) return { row, passed: true }
  return {
    row,
    passed: false,
    because: `${row} has become slower: its ratio is ${digits(ratio)}, the floor ${wanted.floor}, and ${wanted.published} was published. Find what made it slow; if that is worth it, ${rewrite}.`
  }
}

export const judgeSizes = (
  sizes: Readonly<Record<string, number>>,
  budgets: Readonly<Record<string, number>>
): ReadonlyArray<Verdict> => [
  ...Object.entries(sizes).map(([row, bytes]): Verdict => {
    const budget = budgets[row]
    if (budget === undefined) return { row, passed: false, because: `${row} has no size budget: ${rewrite}.` }
    const most = budget + Math.max(leastGrowth, growth * budget)
    if (bytes <= most) return { row, passed: true }
    return {
      row,
      passed: false,
      because: `${row} has grown to ${bytes} bytes from ${budget}, by more than ${100 * growth} %. Make it smaller; if it is worth its size, ${rewrite}.`
    }
  }),
  ...Object.keys(budgets)
    .filter((row) => !(row in sizes))
    .map((row): Verdict => ({ row, passed: false, because: `${row} is exported no more: ${rewrite}.` }))
]
