/** Each exported primitive in a bundle of its own, against a budget. Nothing swings here: one round says it. */
import { type Options, type Run, wanted } from "../harness/options.ts"
import { figure } from "../harness/table.ts"
import { partsOf, primitiveSizes } from "./primitiveSizes.ts"

const budget = 2_500

export const run: Run = async (options: Options) => {
  const sizes = await primitiveSizes((name) => wanted(options, name))
  const parts = await partsOf()
  return sizes.map((size) => {
    const { bytes, name } = size
    const note =
      bytes <= budget
        ? ""
        : parts(size)
            .map((part) => `${part.name} is ${figure(part.bytes / 1_000)} kB alone`)
            .join("; ")
    return {
      row: name,
      ours: bytes / 1_000,
      peer: budget / 1_000,
      peerName: "the budget",
      unit: "kB",
      ratio: budget / bytes,
      range: [budget / bytes, budget / bytes] as const,
      target: 1,
      rounds: 1,
      ...(note === "" ? {} : { note })
    }
  })
}
