/** Whose bytes a bundle's are. */
import { expect, test } from "vitest"
import { partsOf, primitiveSizes, sharesOf } from "../src/size/primitiveSizes.ts"

test("the shares of a bundle are its packages', and together its bytes", async () => {
  const [size] = await primitiveSizes((name) => name === "@curfew/guard: onCancel")
  const shares = size === undefined ? [] : sharesOf(size)
  expect(shares.map(({ name }) => name).sort()).toEqual(["@curfew/guard", "@curfew/reason", "@curfew/scope"])
  expect(shares.reduce((sum, { bytes }) => sum + bytes, 0)).toBeCloseTo(size?.bytes ?? 0, 6)
  expect(shares.map(({ bytes }) => bytes)).toEqual(shares.map(({ bytes }) => bytes).toSorted((a, b) => b - a))
})

test("what a bundle is made of is told by the modules in it", async () => {
  const parts = await partsOf()
  const named = async (export_: string) =>
    (await primitiveSizes((name) => name === export_)).flatMap((size) => parts(size).map(({ name }) => name))
  expect(await named("@curfew/scope: CleanupBudget")).toEqual([])
  expect(await named("@curfew/guard: onCancel")).toEqual([
    "clean-up under a limit and the report of its failure"
  ])
  expect(await named("@curfew/shield: stopCancellation")).toEqual([
    "work in the tree that a cancel reaches",
    "clean-up under a limit and the report of its failure"
  ])
})
