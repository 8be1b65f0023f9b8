import { join } from "node:path"
import { type Bundle, bundled } from "../../../scripts/bundle.ts"

/** The packages whose exports are primitives; what belongs to a protocol or a program is not held to their budget. */
const packages: Readonly<Record<string, () => Promise<object>>> = {
  "@curfew/reason": () => import("@curfew/reason"),
  "@curfew/scope": () => import("@curfew/scope"),
  "@curfew/shield": () => import("@curfew/shield"),
  "@curfew/guard": () => import("@curfew/guard"),
  "@curfew/gather": () => import("@curfew/gather"),
  "@curfew/singleflight": () => import("@curfew/singleflight"),
  "@curfew/request": () => import("@curfew/request"),
  "@curfew/promise": () => import("@curfew/promise"),
  "@curfew/shutdown": () => import("@curfew/shutdown")
}

export interface PrimitiveSize extends Bundle {
  /** As in `@curfew/guard: onCancel`. */
  readonly name: string
}

const bundleOf = (what: string, from: string): Promise<Bundle> =>
  bundled({ code: `export { ${what} } from "${from}"`, dir: join(import.meta.dirname, "../..") })

interface Part {
  readonly name: string
  readonly bytes: number
}

/** `packages/<name>/src/...`; what is not in a package is the entry itself. */
const packageOf = (file: string): string | undefined => /^packages\/([^/]+)\//.exec(file)?.[1]

/** Whose the bytes are: each package's part of the minified ones, taken of the compressed ones; the largest first. */
export const sharesOf = ({ bytes, files }: Bundle): ReadonlyArray<Part> => {
  const minified = new Map<string, number>()
  for (const [file, size] of files) {
    const from = packageOf(file)
    if (from !== undefined && size > 0) minified.set(from, (minified.get(from) ?? 0) + size)
  }
  const all = [...minified.values()].reduce((sum, size) => sum + size, 0)
  return [...minified]
    .map(([from, size]) => ({ name: `@curfew/${from}`, bytes: (bytes * size) / all }))
    .sort((a, b) => b.bytes - a.bytes)
}

/** What most primitives above the budget are made of, by the modules that say that it is in a bundle. */
const parts = [
  {
    what: "forkUnsafe",
    // Clean-up starts fibers by the first of them, and cancels none.
    from: "@curfew/scope/Child",
    by: ["packages/scope/src/internal/child.ts", "packages/reason/src/internal/turn.ts"],
    name: "work in the tree that a cancel reaches"
  },
  {
    what: "reportUnhandled",
    from: "@curfew/scope",
    by: ["packages/scope/src/OnUnhandled.ts"],
    name: "clean-up under a limit and the report of its failure"
  }
] as const

/** The parts of a bundle, each with what it takes alone. */
export const partsOf = async (): Promise<(bundle: Bundle) => ReadonlyArray<Part>> => {
  const known = await Promise.all(
    parts.map(async (part) => ({ ...part, bytes: (await bundleOf(part.what, part.from)).bytes }))
  )
  return ({ files }) => known.filter(({ by }) => by.every((module) => (files.get(module) ?? 0) > 0))
}

/** Each thing that exists at run time among the exports of a package, alone in a bundle with all of Curfew it needs. */
export const primitiveSizes = async (
  keep: (name: string) => boolean = () => true
): Promise<ReadonlyArray<PrimitiveSize>> => {
  const exported = await Promise.all(
    Object.entries(packages).map(async ([from, load]) =>
      Object.keys(await load())
        .sort()
        .map((what) => ({ what, from, name: `${from}: ${what}` }))
    )
  )
  return Promise.all(
    exported
      .flat()
      .filter(({ name }) => keep(name))
      .map(async ({ from, name, what }) => ({ name, ...(await bundleOf(what, from)) }))
  )
}
