/**
 * A report as text.
 *
 * Invariants
 * 1. The first line says how it went; whoever reads no further knows whether anything was left behind.
 * 2. Columns are aligned by the longest entry; a line break in a name cannot break the table.
 */
import { describe } from "@curfew/reason"
import * as Duration from "effect/Duration"
import type { Fate, Report, Trigger } from "../Report.ts"

export const renderReport = (report: Report): string => {
  const count = (fate: Fate) => report.items.filter((item) => item.fate === fate).length
  const head = `Shutdown ${after(report.trigger)} in ${seconds(report.took)}: ${count("drained")} drained, ${count(
    "cancelled"
  )} cancelled, ${count("abandoned")} abandoned`
  const phases = report.phases.map(({ endedBy, phase, took }) => [phase, seconds(took), endings[endedBy]])
  const items = report.items.map(({ failed, fate, kind, name, took }) => [
    fate,
    seconds(took),
    oneLine(name),
    failed ? `${kind}, failed` : kind
  ])
  return [head, ...table(phases), ...(items.length === 0 ? [] : ["", ...table(items)])].join("\n")
}

const endings = { done: "done", limit: "time was up", signal: "moved on by a signal" } as const

const after = (trigger: Trigger): string => {
  switch (trigger._tag) {
    case "Signal":
      return `after ${trigger.signal}`
    case "MainEnded":
      return "at the end of the program"
    case "Requested":
      return "on request"
    case "Cancelled":
      return `because ${describe(trigger.reason)}`
  }
}

const seconds = (duration: Duration.Duration): string =>
  `${(Duration.toMillis(duration) / 1000).toFixed(1)} s`

const oneLine = (text: string): string => text.replaceAll(/\s+/g, " ")

const table = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths: Array<number> = []
  for (const row of rows)
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length)
    })
  return rows.map((row) =>
    `  ${row
      .map((cell, column) => {
        const width = widths[column] ?? 0
        return cell.endsWith(" s") ? cell.padStart(width) : cell.padEnd(width)
      })
      .join("  ")}`.trimEnd()
  )
}
