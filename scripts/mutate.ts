/**
 * Mutation check: takes out masks, finalizers, hand-overs, marks and guards one by one, in a copy of the tree, and
 * reports those that no test notices. `npm run mutate -- guard shield` tries only these packages, `-- taskState.ts` only
 * this file and writes nothing, `--workers=1` takes it easy on the machine, `--list` shows the mutants and runs nothing.
 * Verdicts are kept in `.mutate/`, so a broken-off run goes on where it stopped, and a run after a change tries again only
 * what the change may matter to.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { campaign } from "./mutate/campaign.ts"
import { mutantsOf, placeOf } from "./mutate/mutants.ts"
import { projectAt } from "./mutate/project.ts"
import { complaints, documentOf, readExplanations, scoreOf, tallies } from "./mutate/report.ts"
import { primitives, root } from "./workspace.ts"

const all: ReadonlyArray<string> = primitives

const args = process.argv.slice(2)
const given = args.filter((arg) => !arg.startsWith("--"))
const fileNames = given.filter((arg) => arg.endsWith(".ts"))
const files = fileNames.length > 0 ? fileNames : undefined
const named = given.filter((arg) => !arg.endsWith(".ts"))
const unknown = named.filter((name) => !all.includes(name))
if (unknown.length > 0) {
  console.error(`There is nothing to mutate in ${unknown.join(", ")}: choose from ${all.join(", ")}.`)
  process.exit(1)
}
const workers = Number(args.find((arg) => arg.startsWith("--workers="))?.slice("--workers=".length) ?? 2)
if (!Number.isInteger(workers) || workers < 1) {
  console.error("--workers takes a whole number from 1 on.")
  process.exit(1)
}

const project = projectAt(root, all)
const tried = (path: string): boolean =>
  files === undefined || files.some((file) => path.endsWith(`/${file}`))
const packages = (named.length > 0 ? named : all).filter((name) => project.sources(name).some(tried))
if (packages.length === 0) {
  console.error(`No source is called ${fileNames.join(" or ")}: give the end of a path, as in taskState.ts.`)
  process.exit(1)
}

if (args.includes("--list")) {
  for (const path of packages.flatMap((name) => project.sources(name)).filter(tried)) {
    for (const mutant of mutantsOf({ path, text: project.text(path) }))
      console.log(`${placeOf(mutant)}  ${mutant.code}`)
  }
  process.exit(0)
}

const clock = (millis: number): string => {
  const seconds = Math.round(millis / 1000)
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`
}

const terminal = process.stderr.isTTY === true
let phaseBegan = performance.now()
let phase = ""
const progress = (name: string, done: number, of: number): void => {
  if (name !== phase) {
    phase = name
    phaseBegan = performance.now()
  }
  if (of === 0) return
  const took = performance.now() - phaseBegan
  const left = done === 0 ? "?" : clock((took / done) * (of - done))
  const width = 30
  const bar = "#".repeat(Math.floor((width * done) / of)).padEnd(width, ".")
  const line = `${name} [${bar}] ${done}/${of}  ${clock(took)} gone, ${left} to go`
  if (terminal) process.stderr.write(`\r${line.padEnd(110)}${done === of ? "\n" : ""}`)
  else if (done === of || done % 25 === 0) console.error(line)
}

for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130))

const began = performance.now()
const results = await campaign(project, { packages, tried, workers, progress, memory: join(root, ".mutate") })

const explanationsFile = join(root, "scripts/mutate/survivors.txt")
const explanations = readExplanations(
  existsSync(explanationsFile) ? readFileSync(explanationsFile, "utf8") : ""
)
const document = join(root, "docs/mutation.md")
const before = existsSync(document) ? readFileSync(document, "utf8") : ""
// A row speaks for a whole package.
if (files === undefined) writeFileSync(document, documentOf(results, explanations, project, before))

const columns = (cells: ReadonlyArray<string | number>): string =>
  cells.map((cell, i) => (i === 0 ? String(cell).padEnd(14) : String(cell).padStart(12))).join("")
console.log(columns(["package", "mutants", "killed", "by time-out", "ruled out", "survived", "score"]))
for (const tally of tallies(results)) {
  const { killed, mutants, name, ruledOut, survived, timedOut } = tally
  console.log(columns([name, mutants, killed, timedOut, ruledOut, survived, `${scoreOf(tally)} %`]))
}
const written = files === undefined ? "; written to docs/mutation.md" : ""
console.log(`in ${clock(performance.now() - began)}${written}`)

const asked = new Map([...explanations].filter(([name]) => tried(name.split(" ")[0] as string)))
const wrong = complaints(results, asked, packages)
for (const sentence of wrong) console.log(sentence)
if (wrong.length > 0) process.exitCode = 1
