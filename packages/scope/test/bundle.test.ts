/** What a bundle carries that reports failures and cleans up, and cancels nothing itself. */
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
  test.each(["reportUnhandled", "bounded", "updateLiveMetrics"])(
    "of %s alone carries neither the delivery of interrupts nor the sentences of reasons",
    async (name) => {
      const text = await bundled(`export { ${name} } from "@curfew/scope"`)
      expect(text).toContain("internal/cell.ts")
      expect(text).not.toContain("_deferredInterrupt")
      expect(text).not.toContain("the client has gone")
    }
  )

  test("of a scope carries the delivery", async () => {
    expect(await bundled('export { CancelScope } from "@curfew/scope"')).toContain("_deferredInterrupt")
  })
})
