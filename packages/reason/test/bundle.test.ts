/** What a bundle carries that does not look at metrics or spans, and that it carries them once it does. */
import { build } from "esbuild"
import { describe, expect, test } from "vitest"
import { tellCancels } from "../src/index.ts"

const bundled = async (code: string, external = ["effect", "effect/*"]): Promise<string> => {
  const { outputFiles } = await build({
    bundle: true,
    conditions: ["@curfew/source"],
    external,
    format: "esm",
    platform: "node",
    stdin: { contents: code, resolveDir: import.meta.dirname, loader: "ts" },
    write: false
  })
  return outputFiles[0]?.text ?? ""
}

describe("a bundle", () => {
  test.each([
    'export { CancelCell } from "@curfew/reason/CancelCell"',
    'export { currentReason, awaitCancellation } from "@curfew/reason"'
  ])("carries no metrics: %s", async (code) => {
    const text = await bundled(code)
    expect(text).not.toContain("curfew_cancelled_total")
    expect(text).not.toContain("effect/Metric")
  })

  test.each(["cancelledTotal", "cleanupMillis", "tellCancels"])(
    "carries them once it mentions %s",
    async (name) => {
      const text = await bundled(`import { ${name} } from "@curfew/reason"\nconsole.log(${name})`)
      expect(text).toContain("curfew_cancelled_total")
      expect(text).toContain("curfew_cleanup_milliseconds")
    }
  )

  test("counts no cancel before it calls tellCancels, and each from then on", async () => {
    const code = `
      import * as Effect from "effect/Effect"
      import * as Metric from "effect/Metric"
      import { CancelReason, tellCancels } from "@curfew/reason"
      import { CancelCell } from "@curfew/reason/CancelCell"
      export { tellCancels }
      export const series = () => {
        const registry = new Map()
        const cell = new CancelCell("task", {})
        cell.fiber = Effect.runFork(Effect.provideService(Effect.never, Metric.MetricRegistry, registry))
        cell.cancel(CancelReason.Superseded())
        return registry.size
      }`
    const text = await bundled(code, [])
    const url = `data:text/javascript;base64,${Buffer.from(text).toString("base64")}`
    const program: { series: () => number; tellCancels: typeof tellCancels } = await import(
      /* @vite-ignore */ url
    )
    const before = program.series()
    program.tellCancels()
    expect([before, program.series()]).toEqual([0, 1])
    // Who loads the packages as they are may say so as well: it has been told.
    expect(tellCancels()).toBeUndefined()
  })
})
