/**
 * What there is to mutate and to test: packages, what they stand on, their sources and tests, and a copy of all of
 * it in which files may be overwritten.
 */
import { createHash } from "node:crypto"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync
} from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"

export interface Project {
  readonly root: string
  /** The packages whose sources and tests take part, by the names of their folders. */
  readonly packages: ReadonlyArray<string>
  readonly text: (path: string) => string
  /** The sources of a package, relative to the root. */
  readonly sources: (name: string) => ReadonlyArray<string>
  /** The test files of a package, relative to the root. */
  readonly tests: (name: string) => ReadonlyArray<string>
  /** The package and all those it stands on. */
  readonly below: (name: string) => ReadonlyArray<string>
  /** The package and all those that stand on it. */
  readonly above: (name: string) => ReadonlyArray<string>
  /** Stands for everything a test file's outcome depends on, the mutant apart. */
  readonly evidence: (test: string) => string
}

const skipped = new Set(["node_modules", "dist", "coverage", ".generated"])

const files = (root: string, dir: string): ReadonlyArray<string> =>
  existsSync(join(root, dir))
    ? readdirSync(join(root, dir), { withFileTypes: true }).flatMap((entry) => {
        const path = `${dir}/${entry.name}`
        if (entry.isDirectory()) return skipped.has(entry.name) ? [] : files(root, path)
        return [path]
      })
    : []

export const hash = (...parts: ReadonlyArray<string>): string => {
  const sum = createHash("sha256")
  for (const part of parts) sum.update(`${part.length}:${part}`)
  return sum.digest("hex").slice(0, 20)
}

export const packageOf = (path: string): string => path.split("/")[1] ?? ""

export const projectAt = (root: string, packages: ReadonlyArray<string>): Project => {
  const texts = new Map<string, string>()
  const text = (path: string): string => {
    const known = texts.get(path) ?? readFileSync(join(root, path), "utf8")
    texts.set(path, known)
    return known
  }
  /** What a package's sources and tests import. */
  const uses = new Map(
    packages.map((name) => {
      const manifest: Record<"dependencies" | "devDependencies", Record<string, string> | undefined> =
        JSON.parse(text(`packages/${name}/package.json`))
      const declared = { ...manifest.dependencies, ...manifest.devDependencies }
      return [name, packages.filter((other) => `@curfew/${other}` in declared)]
    })
  )
  const below = (name: string): ReadonlyArray<string> => {
    const found = new Set([name])
    for (const one of found) for (const used of uses.get(one) ?? []) found.add(used)
    return [...found]
  }
  const within = (dir: string) => files(root, dir).toSorted()
  const sources = (name: string) => within(`packages/${name}/src`).filter((path) => path.endsWith(".ts"))
  const tests = (name: string) => within(`packages/${name}/test`).filter((path) => path.endsWith(".test.ts"))
  const helpers = (dir: string) => within(dir).filter((path) => !/\.test\.ts$|laws\.txt$/.test(path))
  const shared = () => [
    ...helpers("test/support"),
    // Tests of one package use the helpers of another.
    ...packages.flatMap((name) => helpers(`packages/${name}/test`)),
    ...["package-lock.json", "vitest.config.ts"].filter((path) => existsSync(join(root, path)))
  ]
  const sums = new Map<string, string>()
  const surroundings = (name: string): string => {
    const known =
      sums.get(name) ??
      hash(...[...below(name).flatMap(sources), ...shared()].map((path) => path + text(path)))
    sums.set(name, known)
    return known
  }
  return {
    root,
    packages,
    text,
    sources,
    tests,
    below,
    above: (name) => packages.filter((other) => below(other).includes(name)),
    evidence: (test) => hash(test, text(test), surroundings(packageOf(test)))
  }
}

/**
 * Copies what the tests read into a new folder. The installed packages are linked, one by one: those of the
 * workspace have to lead into the copy.
 */
export const copyOf = (root: string, modules: string = join(root, "node_modules")): string => {
  const tree = realpathSync(mkdtempSync(join(tmpdir(), "mutate-")))
  const keep = (path: string): boolean => !skipped.has(basename(path))
  for (const name of ["packages", "test", "package.json", "tsconfig.base.json", "vitest.config.ts"]) {
    if (existsSync(join(root, name)))
      cpSync(join(root, name), join(tree, name), { recursive: true, filter: keep })
  }
  mkdirSync(join(tree, "node_modules/@curfew"), { recursive: true })
  for (const name of readdirSync(modules)) {
    if (name !== "@curfew" && (name === ".bin" || !name.startsWith(".")))
      symlinkSync(join(modules, name), join(tree, "node_modules", name))
  }
  for (const name of readdirSync(join(tree, "packages"))) {
    symlinkSync(`../../packages/${name}`, join(tree, "node_modules/@curfew", name))
  }
  return tree
}
