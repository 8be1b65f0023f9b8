/**
 * Runs every check one after the other, also after a failure, and ends with the line `N passed, N failed`.
 * Each test counts as one and each other step as one. With `--long` it runs the tests alone, with many more
 * random cases, then again with fresh seeds for some minutes, and what takes too long for every change: coverage, a
 * million frames of hostile peers, minutes of churn, and mutants.
 */
import { spawn } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs"
import { delimiter, join } from "node:path"
import { root } from "./workspace.ts"

interface Step {
  readonly name: string
  readonly command: string
  /** The status that counts as a pass; 0 unless a planted fault has to be noticed. */
  readonly status?: number
  /** A step that has to pass first, or else this one says nothing. */
  readonly after?: string
  readonly tests?: boolean
  /** Ended after this; default: {@link stepMinutes}. */
  readonly minutes?: number
}

interface Outcome {
  readonly name: string
  readonly seconds: number
  readonly passed: number
  readonly failures: ReadonlyArray<string>
  readonly skipped: ReadonlyArray<string>
}

const report = join(root, ".ci/out/tests.json")
const stepMinutes = 15
// A round that has begun runs to its end, within the minutes of the step.
const soakMinutes = 4
const long = process.argv.includes("--long")

/** The line with which the README tells a newcomer to test. */
const testLine = (): string => {
  const readme = existsSync(join(root, "README.md")) ? readFileSync(join(root, "README.md"), "utf8") : ""
  const fences = [...readme.matchAll(/^```sh\n([\s\S]*?)^```/gm)]
  const lines = fences.flatMap(([, code]) => code?.split("\n") ?? []).map((line) => line.trim())
  return (
    lines.find((line) => line.endsWith("npm test")) ??
    "echo 'README.md has no line that ends in npm test'; false"
  )
}

const start = "npm start -- --once"
const reference = "npm run reference -- --once"

const steps = (): ReadonlyArray<Step> =>
  long
    ? [
        { name: "tests, long", command: "npm test", tests: true },
        { name: "fresh seeds", command: `npm run test:soak -- --minutes ${soakMinutes} --runs 200` },
        // Many more random cases would cover no more lines.
        { name: "coverage", command: "env -u CURFEW_RUNS -u CURFEW_TEST_REPORT npm run coverage" },
        { name: "hostile peers", command: "npm run fuzz -- --frames 1000000 --seed 1", minutes: 60 },
        { name: "churn", command: "npm run churn -- --minutes 5 --seed 1", minutes: 40 },
        { name: "mutants", command: "npm run mutate", minutes: 120 }
      ]
    : [
        { name: "tests", command: testLine(), tests: true },
        { name: "types", command: "npm run typecheck" },
        { name: "lint", command: "npm run lint" },
        { name: "unused code", command: "npm run knip" },
        { name: "laws", command: "npm run laws:check" },
        { name: "exports", command: "npm run exports:check" },
        { name: "public API", command: "npm run api:check", after: "types" },
        { name: "packages", command: "npm run packages:check", after: "types" },
        { name: "sizes", command: "npm run size:check" },
        { name: "speed and size", command: "npm run bench:gate" },
        {
          name: "a planted slow-down is noticed",
          command: "npm run bench:gate -- --plant=spawn --only spawn",
          status: 1,
          after: "speed and size"
        },
        { name: "interoperability", command: "npm run interop -- --required" },
        { name: "start", command: start },
        { name: "reference tunnel", command: reference },
        ...["fiber", "stream", "error"].map((fault) => ({
          name: `a planted ${fault} is noticed`,
          command: `${reference} --plant=${fault}`,
          status: 1,
          after: "reference tunnel"
        }))
      ]

/** The steps see the machine's own Node first, as a newcomer's shell does. */
const environment = (): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name))),
  PATH: (process.env["PATH"] ?? "")
    .split(delimiter)
    .filter((dir) => !dir.includes("node_modules"))
    .join(delimiter),
  CURFEW_TEST_REPORT: report,
  ...(long ? { CURFEW_RUNS: process.env["CURFEW_RUNS"] ?? "2000" } : {})
})

/** Runs a command in a process group of its own and ends the group when it takes too long. */
const run = (command: string, minutes: number): Promise<number | string> =>
  new Promise((resolve) => {
    const child = spawn("bash", ["-c", command], {
      cwd: root,
      detached: true,
      env: environment(),
      stdio: ["ignore", "inherit", "inherit"]
    })
    let late = false
    const timer = setTimeout(() => {
      late = true
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL")
    }, minutes * 60_000)
    child.on("error", ({ message }) => {
      clearTimeout(timer)
      resolve(message)
    })
    child.on("exit", (code, signal) => {
      clearTimeout(timer)
      resolve(late ? `no end after ${minutes} minutes` : (code ?? `ended by ${signal}`))
    })
  })

interface Report {
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly status: string
    readonly assertionResults: ReadonlyArray<{ readonly fullName: string; readonly status: string }>
  }>
}

/** Counts the tests one by one; a file that failed without a failed test in it counts as one failure. */
const countTests = (): Omit<Outcome, "name" | "seconds"> => {
  if (!existsSync(report)) return { passed: 0, failures: ["the tests wrote no report"], skipped: [] }
  const { testResults }: Report = JSON.parse(readFileSync(report, "utf8"))
  const named = testResults.flatMap(({ assertionResults, name }) =>
    assertionResults.map(({ fullName, status }) => ({
      status,
      name: `${name.replace(`${root}/`, "")}: ${fullName}`
    }))
  )
  const broken = testResults.filter(
    (file) => file.status === "failed" && !file.assertionResults.some(({ status }) => status === "failed")
  )
  return {
    passed: named.filter(({ status }) => status === "passed").length,
    failures: [
      ...named.filter(({ status }) => status === "failed").map(({ name }) => name),
      ...broken.map(({ name }) => name.replace(`${root}/`, ""))
    ],
    skipped: named.filter(({ status }) => status !== "passed" && status !== "failed").map(({ name }) => name)
  }
}

const perform = async (
  { after, command, minutes = stepMinutes, name, status, tests }: Step,
  earlier: ReadonlyArray<Outcome>
) => {
  console.log(`\n== ${name}: ${command}`)
  const began = performance.now()
  const wanted = status ?? 0
  const blocked = after !== undefined && earlier.some((o) => o.name === after && o.failures.length > 0)
  if (tests === true) {
    mkdirSync(join(root, ".ci/out"), { recursive: true })
    rmSync(report, { force: true })
  }
  const ended = blocked ? `"${after}" has to pass first` : await run(command, minutes)
  const seconds = (performance.now() - began) / 1000
  const wrong = ended === wanted ? [] : [typeof ended === "string" ? ended : `status ${ended}, not ${wanted}`]
  if (tests !== true) return { name, seconds, passed: 1 - wrong.length, failures: wrong, skipped: [] }
  const counted = countTests()
  return { name, seconds, ...counted, failures: counted.failures.length > 0 ? counted.failures : wrong }
}

const outcomes: Array<Outcome> = []
for (const step of steps()) outcomes.push(await perform(step, outcomes))

console.log("\n== summary")
for (const { failures, name, passed, seconds, skipped } of outcomes) {
  const counts = `${passed} passed, ${failures.length} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ""}`
  console.log(`${name.padEnd(30)} ${seconds.toFixed(1).padStart(7)} s   ${counts}`)
  for (const failure of failures) console.log(`  failed: ${failure}`)
}
const skipped = outcomes.flatMap((outcome) => outcome.skipped)
for (const name of skipped) console.log(`skipped: ${name}`)
const passed = outcomes.reduce((sum, outcome) => sum + outcome.passed, 0)
const failed = outcomes.reduce((sum, outcome) => sum + outcome.failures.length, 0)
console.log(`${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ""}`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
