/** What a bundle carries that does not look at metrics or spans, and that it carries them once it does. */
import { build } from "esbuild"
import { describe, expect, test } from "vitest"

const bundled = async (code: string): Promise<string> => {
  const { outputFiles } = await build({
    bundle: true,
    conditions: ["@curfew/source"],
    external: ["effect", "effect/*"],
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
})
