import type { Run } from "./harness/options.ts"

/** The parts of the benchmark, in the order in which they run. A part is loaded when it runs: peers are large. */
export const parts: Readonly<Record<string, () => Promise<{ readonly run: Run }>>> = {
  primitives: () => import("./primitives/main.ts"),
  grpc: () => import("./grpc/main.ts"),
  http: () => import("./http/main.ts"),
  tunnel: () => import("./tunnel/main.ts"),
  memory: () => import("./memory/main.ts"),
  size: () => import("./size/main.ts")
}
