import { defaultServerConditions } from "vite"
import { defineConfig } from "vitest/config"

const report = process.env["CURFEW_TEST_REPORT"]

// Held to a coverage each: what they promise is in every line of them.
const covered = [
  "reason",
  "scope",
  "shield",
  "guard",
  "gather",
  "singleflight",
  "request",
  "shutdown",
  "promise"
]

export default defineConfig({
  // Workspace packages resolve to their sources: nothing is built before the tests.
  ssr: { resolve: { conditions: ["@curfew/source", ...defaultServerConditions] } },
  test: {
    setupFiles: ["test/support/seed.ts"],
    include: [
      "packages/*/test/**/*.test.ts",
      "examples/*/test/**/*.test.ts",
      "benchmarks/test/**/*.test.ts",
      "test/**/*.test.ts"
    ],
    exclude: ["**/node_modules/**", "**/dist/**"],
    // A watchdog for what hangs, not a limit on speed: machines differ, and the long sweeps share theirs.
    testTimeout: 60_000,
    // Processes that a file starts first take long on a busy machine.
    hookTimeout: 60_000,
    // The gate counts tests in a report.
    reporters: report === undefined ? ["default"] : ["default", ["json", { outputFile: report }]],
    coverage: {
      include: covered.map((name) => `packages/${name}/src/**/*.ts`),
      // Runs only as a process of its own, with signals and an exit code: packages/shutdown/test/node.test.ts.
      exclude: ["packages/shutdown/src/Node.ts"],
      reporter: ["text"],
      thresholds: Object.fromEntries(
        covered.map((name) => [`packages/${name}/src/**`, { lines: 95, branches: 95 }])
      )
    }
  }
})
