/**
 * Repeats everything that has chance in it, with a fresh seed each time, for as long as asked:
 *
 *   npm run test:soak -- --minutes 10
 *   npm run test:soak -- --seed 12345           the one round with that seed
 *   npm run test:soak -- --minutes 5 packages/scope     only the test files whose path has that in it
 *
 * `--runs` is the number of cases of each property (default: 200). The first round that fails ends it, with its seed
 * and the command that repeats it.
 */
import { spawn } from "node:child_process"
import { randomInt } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { filesBelow, root } from "./workspace.ts"

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: "string", default: "5" },
    runs: { type: "string", default: process.env["CURFEW_RUNS"] ?? "200" },
    seed: { type: "string" }
  }
})

const number = (name: "minutes" | "runs" | "seed", text: string): number => {
  const value = Number(text)
  if (Number.isFinite(value) && value >= 0) return value
  console.error(`--${name} has to be a number, not "${text}".`)
  process.exit(2)
}

const minutes = number("minutes", values.minutes)
const runs = number("runs", values.runs)
const fixed = values.seed === undefined ? undefined : number("seed", values.seed)

/** What draws on the seed says so by its imports. */
const chancy = /from "(fast-check|[./]+\/support\/seed\.ts|[./]+\/support\/sweep\.ts)"/
const files = ["packages", "examples", "test"]
  .flatMap((dir) => filesBelow(dir, (path) => /(^|\/)test\/.*\.test\.ts$/.test(path)))
  .filter((path) => !path.includes("node_modules"))
  .filter((path) => chancy.test(readFileSync(join(root, path), "utf8")))
  .filter((path) => positionals.length === 0 || positionals.some((part) => path.includes(part)))

if (files.length === 0) {
  console.error("No test file with chance in it has that in its path.")
  process.exit(2)
}

interface Round {
  readonly passed: boolean
  readonly output: string
}

const round = (seed: number): Promise<Round> =>
  new Promise((resolve) => {
    const output: Array<string> = []
    // Exact paths: as filters, `test/sweep.test.ts` would also take every package's.
    const child = spawn("vitest", ["run", "--reporter=dot", ...files.map((file) => join(root, file))], {
      cwd: root,
      env: {
        ...process.env,
        PATH: `${join(root, "node_modules/.bin")}:${process.env["PATH"]}`,
        CURFEW_SEED: String(seed),
        CURFEW_RUNS: String(runs),
        NO_COLOR: "1"
      },
      stdio: ["ignore", "pipe", "pipe"]
    })
    child.stdout.on("data", (chunk) => output.push(String(chunk)))
    child.stderr.on("data", (chunk) => output.push(String(chunk)))
    child.on("error", ({ message }) => resolve({ passed: false, output: message }))
    child.on("close", (code) => resolve({ passed: code === 0, output: output.join("") }))
  })

const started = performance.now()
const elapsed = (): number => (performance.now() - started) / 60_000
const testsIn = (output: string): string => /^\s*Tests\s+(.*)$/m.exec(output)?.[1]?.trim() ?? "no tests"
const only = positionals.length === 0 ? "" : ` ${positionals.join(" ")}`

console.log(
  fixed === undefined
    ? `${files.length} files, ${runs} cases of each property, fresh seeds for ${minutes} minutes`
    : `${files.length} files, ${runs} cases of each property, seed ${fixed}`
)
for (let rounds = 1; ; rounds++) {
  const seed = fixed ?? randomInt(2 ** 31)
  const began = performance.now()
  const { output, passed } = await round(seed)
  if (!passed) {
    console.log(output)
    console.log(`Seed ${seed} failed. To repeat it:`)
    console.log(`  npm run test:soak -- --seed ${seed} --runs ${runs}${only}`)
    process.exit(1)
  }
  const seconds = ((performance.now() - began) / 1000).toFixed(1)
  console.log(
    `round ${rounds}, seed ${seed}: ${testsIn(output)}, ${seconds} s; ${elapsed().toFixed(1)} of ${minutes} minutes`
  )
  if (fixed !== undefined || elapsed() >= minutes) break
}
