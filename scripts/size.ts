/**
 * Measures what each package and each public module adds to a bundle: minified and gzipped, Effect and other
 * third parties left out. `--write` rewrites the table between the markers in the README; `--check` fails when
 * a figure there is off by more than 10 %.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { bundledBytes } from "./bundle.ts"
import { type Package, packages, root } from "./workspace.ts"

const tolerance = 0.1
const begin = "<!-- sizes:begin -->"
const end = "<!-- sizes:end -->"

/** The bytes of one module; other packages of the workspace count when `whole`. */
const measure = (dir: string, module: string, whole: boolean): Promise<number> =>
  bundledBytes({ file: join(dir, "src", `${module}.ts`) }, whole ? [] : ["@curfew/*"])

const kilobytes = (bytes: number): string => `${(bytes / 1000).toFixed(2)} kB`

const row = async ({ dir, manifest, modules }: Package): Promise<string> => {
  const own = await measure(dir, "index", false)
  const whole = await measure(dir, "index", true)
  const each = await Promise.all(
    modules
      .filter((name) => name !== "index")
      .map(async (name) => `${name} ${kilobytes(await measure(dir, name, false))}`)
  )
  return `| \`${manifest.name}\` | ${kilobytes(own)} | ${kilobytes(whole)} | ${each.join(", ")} |`
}

const rows = await Promise.all(
  packages()
    .filter(({ modules }) => modules.includes("index"))
    .map(row)
)
const table = [
  "| package | alone | with the Curfew packages it uses | its modules |",
  "|---|---|---|---|",
  ...rows
].join("\n")
console.log(table)

const figures = (text: string) => [...text.matchAll(/([\d.]+) kB/g)].map(([, figure]) => Number(figure))
const words = (text: string) =>
  text
    .replaceAll(/[\d.]+ kB/g, "")
    .replaceAll(/\s+/g, " ")
    .trim()

/** Whether the same rows stand in both, with figures no further apart than the tolerance. */
const agree = (written: string, measured: string): boolean => {
  const theirs = figures(written)
  return (
    words(written) === words(measured) &&
    figures(measured).every(
      (figure, index) => Math.abs((theirs[index] ?? 0) - figure) <= Math.max(0.01, figure * tolerance)
    )
  )
}

if (process.argv.includes("--write") || process.argv.includes("--check")) {
  const file = join(root, "README.md")
  const readme = readFileSync(file, "utf8")
  const [head, rest] = readme.split(begin)
  const [written, tail] = rest?.split(end) ?? []
  if (head === undefined || written === undefined || tail === undefined) {
    console.error(`README.md lacks the markers ${begin} and ${end}`)
    process.exitCode = 1
  } else if (process.argv.includes("--write")) {
    writeFileSync(file, `${head}${begin}\n${table}\n${end}${tail}`)
  } else if (!agree(written, table)) {
    console.error("the sizes in README.md are off; run `npm run size -- --write`")
    process.exitCode = 1
  }
}
