import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

export const root = join(import.meta.dirname, "..")

/**
 * The packages that are tried with mutants and held to a coverage, each after those that it stands on. Named as well
 * in vitest.config.ts, which is copied without the scripts, and by the script `coverage` in package.json.
 */
export const primitives = [
  "reason",
  "scope",
  "shield",
  "guard",
  "gather",
  "singleflight",
  "request",
  "shutdown"
] as const

export interface Package {
  readonly dir: string
  readonly manifest: {
    readonly name: string
    readonly exports?: unknown
    readonly dependencies?: Record<string, string>
  }
  /** Names of the public modules, `index` first: every `src/*.ts`, none of `src/internal`. */
  readonly modules: ReadonlyArray<string>
}

/** The packages of the workspace, in the order of their names. */
export const packages = (): ReadonlyArray<Package> =>
  readdirSync(join(root, "packages"))
    .sort()
    .map((name) => join("packages", name))
    .filter((dir) => existsSync(join(root, dir, "package.json")))
    .map((dir) => ({
      dir,
      manifest: JSON.parse(readFileSync(join(root, dir, "package.json"), "utf8")),
      modules: modulesOf(join(root, dir, "src"))
    }))

const modulesOf = (src: string): ReadonlyArray<string> => {
  const names = existsSync(src)
    ? readdirSync(src)
        .filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"))
        .map((file) => file.slice(0, -".ts".length))
        .sort()
    : []
  return [...names.filter((name) => name === "index"), ...names.filter((name) => name !== "index")]
}

/** The files below `dir` (relative to the root) that `keep` accepts, as sorted paths relative to the root. */
export const filesBelow = (dir: string, keep: (path: string) => boolean): ReadonlyArray<string> =>
  existsSync(join(root, dir))
    ? readdirSync(join(root, dir), { withFileTypes: true })
        .flatMap((entry) => {
          const path = join(dir, entry.name)
          if (entry.isDirectory()) {
            return entry.name === "node_modules" || entry.name === "dist" ? [] : filesBelow(path, keep)
          }
          return keep(path) ? [path] : []
        })
        .sort()
    : []
