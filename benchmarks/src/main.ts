/**
 * `npm run bench [-- part…] [--rounds N] [--only text] [--calls N] [--seconds N] [--quick]` measures the named parts, or
 * all of them, prints a table each, and writes `benchmarks/results/<part>.json`; not with `--only`, nor with `--quick`, since
 * the file stands for the whole part as it is meant to be measured. It ends with another status than 0 when a result was
 * wrong, not when a target is missed.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { machine } from "./harness/machine.ts"
import type { Options } from "./harness/options.ts"
import { progressEnd } from "./harness/progress.ts"
import { reached } from "./harness/row.ts"
import { table } from "./harness/table.ts"
import { parts } from "./parts.ts"

const results = join(import.meta.dirname, "../results")

const number = (name: string, text: string): number => {
  const value = Number(text)
  if (!(value > 0 && Number.isFinite(value)))
    throw new Error(`--${name} ${text} is not a number above zero; give one, as in --${name} 5.`)
  return value
}

const read = (args: ReadonlyArray<string>): { names: ReadonlyArray<string>; options: Options } => {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      rounds: { type: "string" },
      only: { type: "string" },
      calls: { type: "string" },
      seconds: { type: "string" },
      quick: { type: "boolean" }
    }
  })
  const known = Object.keys(parts)
  const unknown = positionals.find((name) => !known.includes(name))
  if (unknown !== undefined) throw new Error(`There is no part "${unknown}"; there are ${known.join(", ")}.`)
  return {
    names: positionals.length === 0 ? known : known.filter((name) => positionals.includes(name)),
    options: {
      ...(values.only === undefined ? {} : { only: values.only }),
      ...(values.quick === undefined ? {} : { quick: values.quick }),
      ...Object.fromEntries(
        (["rounds", "calls", "seconds"] as const).flatMap((name) => {
          const text = values[name]
          return text === undefined ? [] : [[name, number(name, text)]]
        })
      )
    }
  }
}

/** Whether every result was right. */
const measure = async (name: string, options: Options): Promise<boolean> => {
  const file = join(results, `${name}.json`)
  const whole = options.only === undefined && options.quick !== true
  // Figures of a former run must not stand for one that failed.
  if (whole) rmSync(file, { force: true })
  console.log(`\n${name}\n${machine()}\n`)
  const began = performance.now()
  try {
    const { run } = await (parts[name] as (typeof parts)[string])()
    const rows = await run(options)
    progressEnd()
    const seconds = Math.round((performance.now() - began) / 1_000)
    console.log(table(rows))
    console.log(`\n${rows.filter(reached).length} of ${rows.length} reached, ${seconds} s`)
    if (whole) writeFileSync(file, `${JSON.stringify(rows, undefined, 2)}\n`)
    return true
  } catch (error) {
    progressEnd()
    console.error(`${name} gave no figures:`, error)
    return false
  }
}

mkdirSync(results, { recursive: true })
try {
  const { names, options } = read(process.argv.slice(2))
  const outcomes: Array<boolean> = []
  for (const name of names) outcomes.push(await measure(name, options))
  process.exit(outcomes.includes(false) ? 1 : 0)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exit(2)
}
