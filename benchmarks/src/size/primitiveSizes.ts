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

export interface PrimitiveSize {
  /** As in `@curfew/guard: onCancel`. */
  readonly name: string
  readonly bytes: number
  /** Where they come from: each package's part of the minified bytes, taken of the compressed ones; the largest first. */
  readonly parts: ReadonlyArray<{ readonly from: string; readonly bytes: number }>
}

/** `packages/<name>/src/...`; what is not in a package is the entry itself. */
const packageOf = (file: string): string | undefined => /^packages\/([^/]+)\//.exec(file)?.[1]

const partsOf = ({ bytes, files }: Bundle): PrimitiveSize["parts"] => {
  const minified = new Map<string, number>()
  for (const [file, size] of files) {
    const from = packageOf(file)
    if (from !== undefined && size > 0) minified.set(from, (minified.get(from) ?? 0) + size)
  }
  const all = [...minified.values()].reduce((sum, size) => sum + size, 0)
  return [...minified]
    .map(([from, size]) => ({ from: `@curfew/${from}`, bytes: (bytes * size) / all }))
    .sort((a, b) => b.bytes - a.bytes)
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
      .map(async ({ from, name, what }) => {
        const bundle = await bundled({
          code: `export { ${what} } from "${from}"`,
          dir: join(import.meta.dirname, "../..")
        })
        return { name, bytes: bundle.bytes, parts: partsOf(bundle) }
      })
  )
}
