/**
 * The names of what was swept in this process.
 *
 * Invariants
 * 1. A name is entered when its sweep has ended, whatever it found: a sweep that found something fails its own test.
 * 2. The last report of a name stays.
 */
import type { SweepReport } from "../SweepReport.ts"

export const swept: Map<string, SweepReport> = new Map()
