import { gzipSync } from "node:zlib"
import { type BuildOptions, build } from "esbuild"
import { root } from "./workspace.ts"

/** What no figure counts: Effect, and other third parties. */
const thirdParties = ["effect", "effect/*", "@effect/*", "@grpc/*"]

export type Entry = { readonly file: string } | { readonly code: string; readonly dir: string }

/** The bytes of an entry from the sources: bundled, minified, gzipped; without third parties and what is `external`. */
export const bundledBytes = async (entry: Entry, external: ReadonlyArray<string> = []): Promise<number> => {
  const input: BuildOptions =
    "file" in entry
      ? { entryPoints: [entry.file] }
      : { stdin: { contents: entry.code, resolveDir: entry.dir, loader: "ts" } }
  const { outputFiles } = await build({
    ...input,
    absWorkingDir: root,
    bundle: true,
    conditions: ["@curfew/source"],
    external: [...thirdParties, ...external],
    format: "esm",
    minify: true,
    platform: "node",
    target: "es2023",
    write: false
  })
  const [output] = outputFiles ?? []
  return output === undefined || output.contents.length === 0
    ? 0
    : gzipSync(output.contents, { level: 9 }).length
}
