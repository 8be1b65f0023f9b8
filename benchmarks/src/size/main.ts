/** Each exported primitive in a bundle of its own, against a budget. Nothing swings here: one round says it. */
import { type Options, type Run, wanted } from "../harness/options.ts"
import { type PrimitiveSize, primitiveSizes } from "./primitiveSizes.ts"

const budget = 2_500

const kilobytes = (bytes: number): string => (bytes / 1_000).toFixed(2)

/** Where the bytes of a bundle above the budget come from. */
const origin = ({ bytes, parts }: PrimitiveSize): { readonly note?: string } =>
  bytes <= budget ? {} : { note: parts.map((part) => `${part.from} ${kilobytes(part.bytes)}`).join(", ") }

export const run: Run = async (options: Options) => {
  const sizes = await primitiveSizes((name) => wanted(options, name))
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
    ...origin(size)
  }))
}
