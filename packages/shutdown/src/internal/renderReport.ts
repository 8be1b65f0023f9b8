/**
 * A report as text.
 *
 * Invariants
 * 1. The first line says how it went; whoever reads no further knows whether anything was left behind.
 * 2. Columns are aligned by the longest entry, in time that grows with the number of rows. Whatever is in a name or a
 *    message of the program: a line stays a line, and a long one is cut.
 */
import { describe } from "@curfew/reason"
import * as Duration from "effect/Duration"
import type { Fate, Report, Trigger } from "../Report.ts"

export const renderReport = (report: Report): string => {
  const count = (fate: Fate) =>
    report.items.reduce((sum, item) => (item.fate === fate ? sum + item.count : sum), 0)
  const head = `Shutdown ${after(report.trigger)} in ${seconds(report.took)}: ${count("drained")} drained, ${count(
    "cancelled"
  )} cancelled, ${count("abandoned")} abandoned`
  const phases = report.phases.map(({ endedBy, phase, took }) => [phase, seconds(took), endings[endedBy]])
  const items = report.items.map(({ count, failed, fate, kind, name, took }) => [
    fate,
    seconds(took),
    count === 1 ? oneLine(name) : `${oneLine(name)} ×${count}`,
    failed ? `${kind}, failed` : kind
  ])
  return [head, ...table(phases), ...(items.length === 0 ? [] : ["", ...table(items)])].join("\n")
}

const endings = { done: "done", limit: "time was up", signal: "moved on by a signal" } as const

const after = (trigger: Trigger): string => {
  switch (trigger._tag) {
    case "Signal":
      return `after ${oneLine(trigger.signal)}`
    case "MainEnded":
      return "at the end of the program"
    case "Requested":
      return "on request"
    case "Cancelled":
      return `because ${oneLine(describe(trigger.reason))}`
  }
}

const seconds = (duration: Duration.Duration): string =>
  `${(Duration.toMillis(duration) / 1000).toFixed(1)} s`

const longest = 120

const oneLine = (text: string): string =>
  (text.length <= longest ? text : `${text.slice(0, longest)}…`).replaceAll(/[\s\p{Cc}]+/gu, " ")

const table = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths: Array<number> = []
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length)
    })
  }
  return rows.map((row) =>
    `  ${row
      .map((cell, column) => {
        const width = widths[column] as number
        // The second column is the time.
        return column === 1 ? cell.padStart(width) : cell.padEnd(width)
      })
      .join("  ")}`.trimEnd()
  )
}
