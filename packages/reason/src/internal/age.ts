/**
 * How old things are, for the live tree.
 *
 * Invariants
 * 1. It is read for display only. No behaviour depends on it, so tests need not own it; deadlines and time slices go
 *    by the clock of the program.
 */

/** Milliseconds since the process began. */
export const uptime = (): number => performance.now()
