/**
 * `npm run bench:self -- folder [count]`: of each `.cpuprofile` in a folder, where the processor's time went, by the function
 * that had it itself. Every process of a benchmark writes one under `NODE_OPTIONS="--cpu-prof --cpu-prof-dir=folder"`.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

interface Profile {
  readonly nodes: ReadonlyArray<{
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
  }>
  readonly samples: ReadonlyArray<number>
  readonly timeDeltas: ReadonlyArray<number>
}

const resting = new Set(["(idle)", "(program)"])

const nameOf = ({ functionName, lineNumber, url }: Profile["nodes"][number]["callFrame"]): string => {
  const file = url
    .replace(/^file:\/\//, "")
    .split("/")
    .slice(-3)
    .join("/")
  return `${functionName || "(anonymous)"}${file === "" ? "" : ` ${file}:${lineNumber + 1}`}`
}

const print = (file: string, count: number): void => {
  const { nodes, samples, timeDeltas }: Profile = JSON.parse(readFileSync(file, "utf8"))
  const names = new Map(nodes.map(({ callFrame, id }) => [id, nameOf(callFrame)]))
  const self = new Map<string, number>()
  samples.forEach((id, index) => {
    const name = names.get(id) ?? "?"
    self.set(name, (self.get(name) ?? 0) + (timeDeltas[index] ?? 0))
  })
  const busy = [...self].filter(([name]) => !resting.has(name)).sort(([, a], [, b]) => b - a)
  const total = busy.reduce((sum, [, micros]) => sum + micros, 0)
  const end =
    nodes.find(({ callFrame }) => callFrame.url.endsWith("End.ts"))?.callFrame.url ?? "another process"
  console.log(`\n${file}, ${end.split("/").slice(-2).join("/")}: ${(total / 1_000).toFixed(0)} ms busy`)
  for (const [name, micros] of busy.slice(0, count))
    console.log(`${((100 * micros) / total).toFixed(1).padStart(6)} %  ${name}`)
}

const [folder, count = "8"] = process.argv.slice(2)
if (folder === undefined) {
  console.error("Say which folder the profiles are in: npm run bench:self -- folder [count].")
  process.exit(2)
}
for (const file of readdirSync(folder).sort())
  if (file.endsWith(".cpuprofile")) print(join(folder, file), Number(count))
