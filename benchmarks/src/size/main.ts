/** Each exported primitive in a bundle of its own, against a budget. Nothing swings here: one round says it. */
import { type Options, type Run, wanted } from "../harness/options.ts"
import { type PrimitiveSize, partsOf, primitiveSizes, sharesOf } from "./primitiveSizes.ts"

const budget = 2_500

const kilobytes = (bytes: number): string => (bytes / 1_000).toFixed(2)

export const run: Run = async (options: Options) => {
  const sizes = await primitiveSizes((name) => wanted(options, name))
  const parts = await partsOf()
  /** Of a bundle above the budget: what some of its parts take alone, and whose its bytes are. */
  const note = (size: PrimitiveSize): string =>
    [
      ...parts(size).map((part) => `${part.name} is ${kilobytes(part.bytes)} kB alone`),
      `of it ${sharesOf(size)
        .map((share) => `${share.name} ${kilobytes(share.bytes)}`)
        .join(", ")}`
    ].join("; ")
  return sizes.map((size) => ({
    row: size.name,
    ours: size.bytes / 1_000,
    peer: budget / 1_000,
    peerName: "the budget",
    unit: "kB",
    ratio: budget / size.bytes,
    range: [budget / size.bytes, budget / size.bytes] as const,
    target: 1,
    rounds: 1,
    ...(size.bytes <= budget ? {} : { note: note(size) })
  }))
}
