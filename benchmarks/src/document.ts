/**
 * `npm run bench:doc` puts the tables of the last run into docs/performance.md, between the markers of each part.
 *
 * Invariants
 * 1. What stands between two markers is made of `results/<part>.json` and of nothing else: a test holds the two together.
 * 2. Everything outside the markers stays as it is.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Row, reached } from "./harness/row.ts"
import { figures, heads, rightAligned } from "./harness/table.ts"
import { parts } from "./parts.ts"

const root = join(import.meta.dirname, "../..")

export const page = join(root, "docs/performance.md")

const columns = [...heads.slice(0, -1), "beside it"]

const cells = (row: Row): ReadonlyArray<string> => [...figures(row).slice(0, -1), row.note ?? ""]

const line = (texts: ReadonlyArray<string>): string =>
  `| ${texts.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`

/** The rows as a table in Markdown, under a line that counts what was reached. */
export const markdown = (rows: ReadonlyArray<Row>): string => {
  const rounds = [...new Set(rows.map((row) => row.rounds))].sort((a, b) => a - b)
  const count = `${rows.filter(reached).length} of ${rows.length} reached; rounds: ${rounds.join(", ")}.`
  // Rounds stand in the line above.
  const rule = line(columns.map((head) => (rightAligned.has(head) || head === "range" ? "--:" : "---")))
  return [count, "", line(columns), rule, ...rows.map((row) => line(cells(row)))].join("\n")
}

const resultsOf = (part: string): ReadonlyArray<Row> =>
  JSON.parse(readFileSync(join(root, "benchmarks/results", `${part}.json`), "utf8")) as ReadonlyArray<Row>

/** The page with the tables of these results in it. */
export const filled = (text: string, read: (part: string) => ReadonlyArray<Row> = resultsOf): string =>
  Object.keys(parts).reduce((page, part) => {
    const [begin, end] = [`<!-- ${part}:begin -->`, `<!-- ${part}:end -->`]
    const [from, to] = [page.indexOf(begin), page.indexOf(end)]
    if (from < 0 || to < from) throw new Error(`docs/performance.md has no ${begin} before its ${end}.`)
    return `${page.slice(0, from + begin.length)}\n${markdown(read(part))}\n${page.slice(to)}`
  }, text)

if (import.meta.main) {
  const text = readFileSync(page, "utf8")
  writeFileSync(page, filled(text))
  console.log(
    "docs/performance.md has the tables of the last run. Write the machine that it ran on into it by hand."
  )
}
