import type { Run } from "./harness/options.ts"

/** The parts of the benchmark, in the order in which they run. A part is loaded when it runs: peers are large. */
export const parts: Readonly<Record<string, () => Promise<{ readonly run: Run }>>> = {
  http: () => import("./http/main.ts"),
  size: () => import("./size/main.ts")
}
