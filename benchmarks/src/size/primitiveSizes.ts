import { join } from "node:path"
import { bundledBytes } from "../../../scripts/bundle.ts"

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
      .map(async ({ from, name, what }) => ({
        name,
        bytes: await bundledBytes({
          code: `export { ${what} } from "${from}"`,
          dir: join(import.meta.dirname, "../..")
        })
      }))
  )
}
