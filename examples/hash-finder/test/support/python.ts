/** Python with grpcio, where it can be had. */
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const execute = promisify(execFile)
const example = fileURLToPath(new URL("../..", import.meta.url))
const requirements = join(example, "python/requirements.txt")
const cache = join(example, "../../node_modules/.cache/curfew-hash-finder")

export interface Python {
  /** The command and its environment, for the client of the example. */
  readonly command: string
  readonly client: string
  readonly env: Readonly<Record<string, string>>
  readonly remove: () => void
}

/** Python with the packages of requirements.txt and the stubs, or a sentence that says why there is none. */
export const findPython = async (): Promise<Python | string> => {
  const command = process.platform === "win32" ? "python" : "python3"
  try {
    const { stdout: version } = await execute(command, ["--version"])
    const packages = await installed(command, version)
    const stubs = mkdtempSync(join(tmpdir(), "hash-finder-"))
    const env = { PYTHONPATH: `${packages}:${stubs}` }
    const proto = join(example, "proto")
    const out = [`--python_out=${stubs}`, `--grpc_python_out=${stubs}`]
    await execute(command, ["-m", "grpc_tools.protoc", `-I${proto}`, ...out, "hash_finder.proto"], {
      env: { ...process.env, ...env }
    })
    const remove = () => rmSync(stubs, { recursive: true, force: true })
    return { command, client: join(example, "python/client.py"), env, remove }
  } catch (error) {
    const { message } = error as Error
    const [line = ""] = message.trim().split("\n").slice(-1)
    return `Install python3 with pip, and let it reach a package index, to run this test: ${line}`
  }
}

/** Installs the packages once for each Python and each list of requirements. */
const installed = async (command: string, version: string): Promise<string> => {
  const key = createHash("sha256")
    .update(version)
    .update(readFileSync(requirements))
    .digest("hex")
    .slice(0, 16)
  const packages = join(cache, key)
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
