import { gzipSync } from "node:zlib"
import { type BuildOptions, build } from "esbuild"
import { root } from "./workspace.ts"

/** What no figure counts: Effect, and other third parties. */
const thirdParties = ["effect", "effect/*", "@effect/*", "@grpc/*"]

export type Entry = { readonly file: string } | { readonly code: string; readonly dir: string }

export interface Bundle {
  readonly bytes: number
  /** The modules of which something is in it. */
  readonly modules: ReadonlyArray<string>
}

/** An entry from the sources: bundled, minified, gzipped; without third parties and what is `external`. */
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
  const inputs = Object.values(metafile.outputs).flatMap((made) => Object.entries(made.inputs))
  return {
    bytes:
      output === undefined || output.contents.length === 0
        ? 0
        : gzipSync(output.contents, { level: 9 }).length,
    modules: inputs.filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([file]) => file)
  }
}

/** The bytes of an entry from the sources: bundled, minified, gzipped; without third parties and what is `external`. */
export const bundledBytes = async (entry: Entry, external?: ReadonlyArray<string>): Promise<number> =>
  (await bundled(entry, external)).bytes
