/**
 * Asking upwards from a cell past what no cancel crosses: shields, masks and owners. For those who write primitives.
 *
 * @stability internal
 * @since 0.1.0
 */

import type { CancelCell } from "./CancelCell.ts"
import type { CancelReason } from "./CancelReason.ts"
import { type Cell, has, own } from "./internal/cell.ts"

/** The cells from this one upwards, on both roads, the cell itself first. */
function* upwards(cell: Cell): Generator<Cell> {
  const above: Array<Cell> = [cell]
  for (let next = above.pop(); next !== undefined; next = above.pop()) {
    yield next
    if (next.outer !== undefined) above.push(next.outer)
    if (next.parent !== undefined) above.push(next.parent)
  }
}

/**
 * Whether the cell is the other one or stands somewhere below it, behind shields and masks as well.
 *
 * @stability internal
 * @since 0.1.0
 */
export const isInside = (cell: Cell, other: Cell): boolean => {
  for (const above of upwards(cell)) if (above === other) return true
  return false
}

/**
 * The nearest reason upwards, looking through shields and masks as well.
 *
 * @stability internal
 * @since 0.1.0
 */
export const outerReasonOf = (cell: Cell): CancelReason | undefined => {
  let beside: Array<Cell> | undefined
  for (let next: Cell | undefined = cell; next !== undefined; ) {
    const { outer, parent, reason } = next as Cell
    if (reason !== undefined) return reason
    // Mostly there is one road.
    if (outer !== undefined && parent !== undefined) {
      if (beside === undefined) beside = [outer]
      else beside.push(outer)
    }
    next = parent ?? outer ?? beside?.pop()
  }
  return undefined
}

/**
 * Calls back once, at the first cancel upwards, looking through shields and masks as well. Returns the removal.
 *
 * @stability internal
 * @since 0.1.0
 */
export const listenOuter = (cell: Cell, listener: (reason: CancelReason) => void): (() => void) => {
  const removals: Array<() => void> = []
  const remove = () => {
    for (const forget of removals) forget()
  }
  const once = (reason: CancelReason) => {
    // The others would be heard at a later cancel.
    remove()
    listener(reason)
  }
  removals.push(cell.listen(once))
  // What comes down from a parent is heard below; beyond a barrier it takes an ear of its own.
  for (const { outer } of upwards(cell)) if (outer !== undefined) removals.push(outer.listen(once))
  return remove
}

/**
 * The name of the cell whose cancel reached this one.
 *
 * @stability internal
 * @since 0.1.0
 */
export const cancelledBy = (cell: Cell): string | undefined => {
  let by: Cell | undefined = cell
  while (by !== undefined && !has(by, own)) by = by.parent
  return by?.name
}

/**
 * The earliest deadline between the cell and the nearest shield, mask or owner above it, in monotonic milliseconds.
 *
 * @stability internal
 * @since 0.1.0
 */
export const effectiveDeadlineOf = (cell: Cell): number => {
  let earliest = Number.POSITIVE_INFINITY
  for (let above: Cell | undefined = cell; above !== undefined; above = above.parent) {
    const { deadline } = above as CancelCell
    if (deadline !== undefined && deadline < earliest) earliest = deadline
  }
  return earliest
}
