/**
 * `npm run bench:gate [-- --write] [--plant=<row>] [--only text]`: whether something has become slow or large.
 *
 * A few ratios are compared with the floors in `benchmarks/gate.json`, and the size of each exported primitive with its
 * budget there. A row below its floor is measured once more, with more rounds, before it fails. `--write` measures at
 * length and writes the file; `--plant` makes one row three times as slow, which has to be noticed.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { machine } from "../harness/machine.ts"
import { figure } from "../harness/table.ts"
import { primitiveSizes } from "../size/primitiveSizes.ts"
import { gateRows } from "./contests.ts"
import { type Expectations, expected, judgeRatio, judgeSizes, type Verdict } from "./judge.ts"
import { type Measured, prepare } from "./measure.ts"

const file = join(import.meta.dirname, "../../gate.json")
const rounds = { first: 31, again: 121, written: 201 }

const { values } = parseArgs({
  options: { write: { type: "boolean" }, plant: { type: "string" }, only: { type: "string" } }
})

const read = (): Expectations => JSON.parse(readFileSync(file, "utf8")) as Expectations

const line = (...cells: ReadonlyArray<string>): void =>
  console.log(
    cells.map((cell, index) => (index < 2 ? cell.padEnd(index === 0 ? 24 : 34) : cell.padStart(9))).join(" ")
  )

const told = (measured: Measured, floor: string): void =>
  line(
    measured.row,
    measured.peerName,
    figure(measured.ours),
    figure(measured.peer),
    figure(measured.ratio),
    floor,
    String(measured.rounds)
  )

const sizes = async (): Promise<Readonly<Record<string, number>>> =>
  Object.fromEntries((await primitiveSizes()).map(({ bytes, name }) => [name, bytes]))

console.log(machine())
const expectations = values.write === true ? { rows: [], sizes: {} } : read()
const verdicts: Array<Verdict> = []
const measured: Array<Measured> = []
const planted: Array<string> = []

line("row", "compared with", "ours µs", "peer µs", "ratio", "floor", "rounds")
for (const load of gateRows) {
  const row = await load()
  if (values.only !== undefined && !row.row.includes(values.only)) continue
  if (row.row === values.plant) planted.push(row.row)
  const warmed = await prepare(row, row.row === values.plant)
  if (values.write === true) {
    const one = await warmed.run(rounds.written)
    told(one, "")
    measured.push(one)
    continue
  }
  const floor = expectations.rows.find((one) => one.row === row.row)?.floor
  const floorText = floor === undefined ? "none" : figure(floor)
  const first = await warmed.run(rounds.first)
  told(first, floorText)
  let verdict = judgeRatio(row.row, first.ratio, expectations.rows)
  if (!verdict.passed && floor !== undefined) {
    const again = await warmed.run(rounds.again)
    told(again, floorText)
    verdict = judgeRatio(row.row, again.ratio, expectations.rows)
  }
  verdicts.push(verdict)
}
if (values.plant !== undefined && planted.length === 0)
  throw new Error(`There is no row "${values.plant}" to plant a fault in; give one of those in the table.`)

if (values.write === true) {
  const written: Expectations = {
    rows: measured.map(({ ratio, row }) => expected(row, ratio)),
    sizes: await sizes()
  }
  writeFileSync(file, `${JSON.stringify(written, undefined, 2)}\n`)
  console.log(`${written.rows.length} ratios and ${Object.keys(written.sizes).length} sizes written`)
  process.exit(0)
}

if (values.only === undefined) {
  const own = await sizes()
  verdicts.push(...judgeSizes(own, expectations.sizes))
  console.log(`${Object.keys(own).length} exports within 5 % of their budgets, or else below`)
}
const failed = verdicts.filter(({ passed }) => !passed)
for (const { because } of failed) console.error(because)
console.log(`${verdicts.length - failed.length} passed, ${failed.length} failed`)
process.exit(failed.length === 0 ? 0 : 1)
