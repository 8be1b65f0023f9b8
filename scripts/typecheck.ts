/** Builds the packages, then checks what is not built: tests, examples, scripts, and the examples in the docs. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { generate } from "./docTests.ts"
import { root } from "./workspace.ts"

const tsc = join(root, "node_modules/.bin/tsc")

const run = (...args: ReadonlyArray<string>) => {
  console.log(`tsc ${args.join(" ")}`)
  return spawnSync(tsc, args, { cwd: root, stdio: "inherit" }).status === 0
}

const fences = generate()
const results = [
  run("-b"),
  run("-p", "tsconfig.test.json"),
  fences.length === 0 || run("-p", "test/.generated")
]
if (results.includes(false)) process.exitCode = 1
