/**
 * Derives the `exports` of each package from the files in its `src`: `.` is `index.ts`, `./Name` is `Name.ts`.
 * With `--check` it writes nothing and fails when one is stale.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { packages, root } from "./workspace.ts"

const check = process.argv.includes("--check")

const exportsOf = (modules: ReadonlyArray<string>) => ({
  ...Object.fromEntries(
    modules.map((name) => [
      name === "index" ? "." : `./${name}`,
      { "@curfew/source": `./src/${name}.ts`, types: `./dist/${name}.d.ts`, default: `./dist/${name}.js` }
    ])
  ),
  "./package.json": "./package.json"
})

let stale = 0
for (const { dir, manifest, modules } of packages()) {
  const wanted = exportsOf(modules)
  if (JSON.stringify(manifest.exports) === JSON.stringify(wanted)) continue
  stale += 1
  const file = join(root, dir, "package.json")
  if (check) {
    console.error(`${dir}/package.json: exports are stale; run "npm run exports"`)
  } else {
    const current = JSON.parse(readFileSync(file, "utf8"))
    writeFileSync(file, `${JSON.stringify({ ...current, exports: wanted }, null, 2)}\n`)
    console.log(`${dir}/package.json: exports written`)
  }
}
if (stale === 0) console.log("exports are up to date")
if (check && stale > 0) process.exitCode = 1
