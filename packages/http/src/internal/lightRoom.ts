/**
 * Which requests an edge can take without a call.
 *
 * Invariants
 * 1. What is counted here is what is under way: what has ended in this very turn takes no room.
 */
import type { Edge, Spec } from "./edge.ts"
import { clientMillis, type Resolved } from "./options.ts"
import { endTurn } from "./turn.ts"

/** Whether an edge has room for a request that nothing is said of that has to go on beside it from its start. */
export const hasRoom = ({ requests, table }: Edge, { light }: Spec): boolean => {
  if (!light || table.refusing) return false
  if (table.entries.size < requests) return true
  // Of those that are there some may have ended in this very turn.
  endTurn()
  return table.entries.size < requests
}

/** How long a request may take; zero where what its client says of it is no time. */
export const limitOf = ({ clientDeadline, deadline }: Resolved, wish: string | undefined): number => {
  if (clientDeadline === undefined || wish === undefined) return deadline
  const millis = clientMillis(wish) ?? Number.NaN
  return Number.isNaN(millis) ? 0 : Math.min(deadline, millis, clientDeadline.max)
}
