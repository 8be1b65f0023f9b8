/**
 * The public API of each package as one text file, `packages/<name>/api.txt`: every declaration that a user can
 * import, without comments. It is checked in, so that a change of a signature shows in a review. `--check` fails
 * when a file is stale. Needs a build (`npm run build`).
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { packages, root } from "./workspace.ts"

const check = process.argv.includes("--check")

const declarations = (text: string): string =>
  text
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/^\/\/#.*$/gm, "")
    .split("\n")
    .map((line) => line.trimEnd())
    .filter((line) => line !== "" && !line.startsWith("import "))
    .join("\n")

const dump = (dir: string, name: string): string => {
  const dist = join(root, dir, "dist")
  const files = readdirSync(dist)
    .filter((file) => file.endsWith(".d.ts"))
    .sort()
  const modules = files.map((file) => {
    const path = file === "index.d.ts" ? name : `${name}/${file.slice(0, -".d.ts".length)}`
    return `## ${path}\n\n${declarations(readFileSync(join(dist, file), "utf8"))}\n`
  })
  return modules.join("\n")
}

let stale = 0
for (const { dir, manifest } of packages()) {
  const target = join(root, dir, "api.txt")
  if (!existsSync(join(root, dir, "dist"))) {
    console.error(`${dir} is not built; run npm run build first.`)
    process.exitCode = 1
    continue
  }
  const text = dump(dir, manifest.name)
  if (existsSync(target) && readFileSync(target, "utf8") === text) continue
  stale++
  if (check) console.error(`${dir}/api.txt is stale; run npm run api and look at the difference.`)
  else {
    writeFileSync(target, text)
    console.log(`${dir}/api.txt written`)
  }
}
if (check && stale > 0) process.exitCode = 1
