import type * as Duration from "effect/Duration"
import type { ConformanceCase, Departure, DisconnectDriver } from "./Disconnects.ts"
import { matrix } from "./internal/matrix.ts"

/**
 * The disconnect matrix: each departure with each policy that a driver knows, as cases to run.
 *
 * **Guarantees**
 *
 * - **What the handler saw**: whether it started, was told, was interrupted, and with which reason.
 * - **When**: within a bounded number of turns; a grace to the millisecond, on a virtual clock.
 * - **What the other side got**: the parts that had been sent, and nothing more.
 * - **Nothing left**: no fiber, no connection, nothing in the driver's tree.
 *
 * **When cancelled**
 *
 * The case that runs is abandoned, and none of its fibers runs again.
 *
 * **Gotchas**
 *
 * A case that waits for something which does not come fails after `patience`.
 *
 * @see httpDisconnects for the departures of HTTP.
 * @stability unstable
 * @since 0.1.0
 */
export const disconnectMatrix = <Link, E>(
  driver: DisconnectDriver<Link, E>,
  departures: Iterable<Departure<Link>>,
  options: {
    /** Real time to wait for an event before a case has failed. Default: 5 seconds. */
    readonly patience?: Duration.Input | undefined
  } = {}
): ReadonlyArray<ConformanceCase> => matrix(driver, departures, options.patience ?? "5 seconds")
