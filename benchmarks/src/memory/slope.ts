/** A line through points, and how sure its slope is. */
export interface Slope {
  readonly slope: number
  /** Half the width of the interval in which the slope is with 95 %. */
  readonly half: number
}

/** Student's t for 95 %, both sides, by degrees of freedom; between the entries the larger one holds. */
const students: ReadonlyArray<readonly [degrees: number, t: number]> = [
  [1, 12.706],
  [2, 4.303],
  [3, 3.182],
  [4, 2.776],
  [5, 2.571],
  [6, 2.447],
  [8, 2.306],
  [10, 2.228],
  [15, 2.131],
  [20, 2.086],
  [30, 2.042],
  [60, 2.0],
  [120, 1.98],
  [Number.POSITIVE_INFINITY, 1.96]
]

const tOf = (degrees: number): number =>
  [...students].reverse().find(([least]) => least <= degrees)?.[1] ?? Number.POSITIVE_INFINITY

export const slopeOf = (points: ReadonlyArray<readonly [x: number, y: number]>): Slope => {
  const count = points.length
  if (count < 3) throw new Error(`A slope has no interval with ${count} points; give at least three.`)
  const mean = (values: ReadonlyArray<number>) => values.reduce((sum, value) => sum + value, 0) / count
  const x = mean(points.map(([at]) => at))
  const y = mean(points.map(([, value]) => value))
  const spread = points.reduce((sum, [at]) => sum + (at - x) ** 2, 0)
  const slope = points.reduce((sum, [at, value]) => sum + (at - x) * (value - y), 0) / spread
  const rest = points.reduce((sum, [at, value]) => sum + (value - y - slope * (at - x)) ** 2, 0)
  return { slope, half: tOf(count - 2) * Math.sqrt(rest / (count - 2) / spread) }
}
