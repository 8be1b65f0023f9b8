import type { Counts } from "../process/Meter.ts"
import type { Lane } from "./TimelineEvent.ts"
import { paint, type Style } from "./timeline.ts"

/** What must not stay behind, in the words of the table. */
const rows: ReadonlyArray<readonly [name: string, key: keyof Counts]> = [
  ["fibers", "fibers"],
  ["open streams", "openStreams"],
  ["listeners", "listeners"],
  ["timers", "timers"],
  ["ports", "ports"],
  ["sockets", "sockets"],
  ["stuck clean-up", "stuck"]
]

/** The same count in two states, as the difference. */
export const since = (before: Counts, after: Counts): Counts => {
  // What was there before and has ended since is no debt of the calls: less than before is none left over.
  const difference = (key: keyof Counts) => Math.max(0, after[key] - before[key])
  return {
    fibers: difference("fibers"),
    openStreams: difference("openStreams"),
    listeners: difference("listeners"),
    timers: difference("timers"),
    ports: difference("ports"),
    sockets: difference("sockets"),
    stuck: difference("stuck"),
    unhandled: difference("unhandled"),
    errorLogs: difference("errorLogs"),
    lateWrites: difference("lateWrites")
  }
}

/** A table with a column per process. With `keep`, the rows of what stays open between calls are left out. */
export const leftOver = (
  columns: ReadonlyArray<{ readonly lane: Lane; readonly counts: Counts | undefined }>,
  style: Style,
  keep = false
): ReadonlyArray<string> => {
  const shown = rows.filter(([, key]) => !keep || (key !== "ports" && key !== "sockets"))
  const first = Math.max(...rows.map(([name]) => name.length))
  const cell = (text: string) => text.padStart(9)
  const head = `${" ".repeat(first)}${columns.map(({ lane }) => cell(lane)).join("")}`
  return [
    paint(head, "dim", style),
    ...shown.map(([name, key]) => {
      const cells = columns.map(({ counts }) => {
        const value = counts?.[key]
        if (value === undefined) return paint(cell("unknown"), "red", style)
        return value === 0 ? paint(cell("none"), "dim", style) : paint(cell(String(value)), "red", style)
      })
      return `${name.padEnd(first)}${cells.join("")}`
    })
  ]
}
