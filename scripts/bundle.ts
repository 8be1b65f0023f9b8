import { gzipSync } from "node:zlib"
import { type BuildOptions, build } from "esbuild"
import { root } from "./workspace.ts"

/** What no figure counts: Effect, and other third parties. */
const thirdParties = ["effect", "effect/*", "@effect/*", "@grpc/*"]

export type Entry = { readonly file: string } | { readonly code: string; readonly dir: string }

export interface Bundle {
  /** Bundled, minified, gzipped; without third parties and what is `external`. */
  readonly bytes: number
  /** The minified bytes that each source file gave, by its path from the root. */
  readonly files: ReadonlyMap<string, number>
}

/** An entry in a bundle, from the sources. */
export const bundled = async (entry: Entry, external: ReadonlyArray<string> = []): Promise<Bundle> => {
  const input: BuildOptions =
    "file" in entry
      ? { entryPoints: [entry.file] }
      : { stdin: { contents: entry.code, resolveDir: entry.dir, loader: "ts" } }
  const { metafile, outputFiles } = await build({
    ...input,
    absWorkingDir: root,
    bundle: true,
    conditions: ["@curfew/source"],
    external: [...thirdParties, ...external],
    format: "esm",
    metafile: true,
    minify: true,
    platform: "node",
    target: "es2023",
    write: false
  })
  const [output] = outputFiles ?? []
  return {
    bytes:
      output === undefined || output.contents.length === 0
        ? 0
        : gzipSync(output.contents, { level: 9 }).length,
    files: new Map(
      Object.values(metafile?.outputs ?? {}).flatMap(({ inputs }) =>
        Object.entries(inputs).map(([file, { bytesInOutput }]) => [file, bytesInOutput] as const)
      )
    )
  }
}

export const bundledBytes = async (entry: Entry, external: ReadonlyArray<string> = []): Promise<number> =>
  (await bundled(entry, external)).bytes
