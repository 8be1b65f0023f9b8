/** Python with grpcio, where it can be had. */
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const execute = promisify(execFile)
const requirements = fileURLToPath(new URL("../fixtures/requirements.txt", import.meta.url))
const cache = fileURLToPath(new URL("../../../../node_modules/.cache/curfew-tunnel-cli", import.meta.url))

export interface Python {
  readonly command: string
  readonly env: Readonly<Record<string, string>>
}

/** Python with the packages of requirements.txt, or a sentence that says why there is none. */
export const findPython = async (): Promise<Python | string> => {
  const command = process.platform === "win32" ? "python" : "python3"
  try {
    const { stdout: version } = await execute(command, ["--version"])
    return { command, env: { PYTHONPATH: await installed(command, version) } }
  } catch (error) {
    const [line = ""] = (error as Error).message.trim().split("\n").slice(-1)
    return `Install python3 with pip, and let it reach a package index, to run this test: ${line}`
  }
}

/** Installs the packages once for each Python and each list of requirements. */
const installed = async (command: string, version: string): Promise<string> => {
  const hash = createHash("sha256").update(version).update(readFileSync(requirements))
  const packages = join(cache, hash.digest("hex").slice(0, 16))
  if (existsSync(packages)) return packages
  mkdirSync(cache, { recursive: true })
  const fresh = mkdtempSync(join(cache, "fresh-"))
  try {
    const quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "1"]
    await execute(command, ["-m", "pip", "install", ...quiet, "--target", fresh, "-r", requirements])
    // In one step: an install that is cut off is never taken for a whole one.
    if (!existsSync(packages)) renameSync(fresh, packages)
  } finally {
    rmSync(fresh, { recursive: true, force: true })
  }
  return packages
}
