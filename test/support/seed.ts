/**
 * Where all chance of the tests comes from, so that a run can be repeated and a soak can multiply it.
 *
 * `CURFEW_SEED` is the seed of every property and of every explored schedule; without it, it is always the same, so
 * that the gate is. `CURFEW_RUNS` is the number of cases of a property. Vitest loads this file before each test file.
 */
import fc from "fast-check"

/** The seed of this run. */
export const seed: number = Number(process.env["CURFEW_SEED"] ?? 1)

const asked = process.env["CURFEW_RUNS"]

/** How much more than the usual is asked for: 1 in the gate. */
export const repeats: number = asked === undefined ? 1 : Math.max(1, Math.min(10, Number(asked) / 200))

/** How often a property runs: CURFEW_RUNS, or the given number. */
export const runs = (otherwise: number): { readonly numRuns: number } => ({
  numRuns: asked === undefined ? otherwise : Number(asked)
})

if (!Number.isSafeInteger(seed)) throw new Error("CURFEW_SEED has to be a whole number.")
fc.configureGlobal({ seed })
