/** Checks the shape of each built package, as it would be published: publint, and attw for its types. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { publint } from "publint"
import { formatMessage } from "publint/utils"
import { packages, root } from "./workspace.ts"

const attw = join(root, "node_modules/.bin/attw")

for (const { dir, manifest } of packages()) {
  const { messages, pkg } = await publint({ pkgDir: join(root, dir), strict: true })
  for (const message of messages) console.error(`${manifest.name}: ${formatMessage(message, pkg)}`)
  const types = spawnSync(attw, ["--pack", dir, "--profile", "esm-only", "--no-color"], {
    cwd: root,
    encoding: "utf8"
  })
  if (types.status !== 0) console.error(`${types.stdout}${types.stderr}`)
  if (messages.length > 0 || types.status !== 0) process.exitCode = 1
  else console.log(`${manifest.name}: in order`)
}
