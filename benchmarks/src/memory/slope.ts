/** How much a level grows, and how sure that is. */
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

/** Over so many increments what is left of one in the next is counted; beyond that it is taken for nothing. */
const lagsOf = (count: number): number => Math.floor(4 * (count / 100) ** (2 / 9))

/**
 * The mean growth from sample to sample, and how sure it is.
 *
 * A heap is a level that is moved: by what calls leave, all the time, and by a table that doubles or a function that is
 * compiled, now and then, once, and for good. A line fitted by least squares takes one such step for a slope, and is sure
 * of it, since it takes the distances from the line for independent; those of a level that is moved are not. So the
 * increments are looked at. Their mean is the slope; its error comes from how they scatter, with the part that one
 * increment gives back to the next (Newey and West, Bartlett's weights), since noise of a single sample moves two of them.
 */
export const slopeOf = (points: ReadonlyArray<readonly [x: number, y: number]>): Slope => {
  const count = points.length - 1
  if (count < 3) throw new Error(`A slope has no interval with ${points.length} points; give at least four.`)
  const [x0, y0] = points[0] as readonly [number, number]
  const [x, y] = points[count] as readonly [number, number]
  const slope = (y - y0) / (x - x0)
  const rests = points.slice(1).map(([at, value], index) => {
    const [before, old] = points[index] as readonly [number, number]
    return value - old - slope * (at - before)
  })
  const product = (lag: number): number =>
    rests.slice(lag).reduce((sum, rest, index) => sum + rest * (rests[index] as number), 0)
  const lags = lagsOf(count)
  let spread = product(0)
  for (let lag = 1; lag <= lags; lag++) spread += 2 * (1 - lag / (lags + 1)) * product(lag)
  // So many stretches are as good as independent.
  const degrees = Math.max(1, Math.floor(count / (lags + 1)))
  const error = Math.sqrt((Math.max(0, spread) * count) / (count - 1)) / (x - x0)
  return { slope, half: tOf(degrees) * error }
}
