/** Whose bytes a bundle's are. */
import { expect, test } from "vitest"
import { primitiveSizes } from "../src/size/primitiveSizes.ts"

test("the parts of a bundle are its packages', and together its bytes", async () => {
  const [size] = await primitiveSizes((name) => name === "@curfew/guard: onCancel")
  const parts = size?.parts ?? []
  expect(parts.map(({ from }) => from).sort()).toEqual(["@curfew/guard", "@curfew/reason", "@curfew/scope"])
  expect(parts.reduce((sum, { bytes }) => sum + bytes, 0)).toBeCloseTo(size?.bytes ?? 0, 6)
  expect(parts.map(({ bytes }) => bytes)).toEqual(parts.map(({ bytes }) => bytes).toSorted((a, b) => b - a))
})
