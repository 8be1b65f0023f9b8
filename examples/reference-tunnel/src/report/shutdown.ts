import type { ShutdownReport } from "../process/messages.ts"
import type { Lane } from "./TimelineEvent.ts"
import { millis } from "./timeline.ts"

/** What a staged shutdown did, one line for each process and one for each of its stages that had work to do. */
export const shutdownLines = (
  reports: ReadonlyArray<{ readonly lane: Lane; readonly report: ShutdownReport | undefined }>
): ReadonlyArray<string> =>
  reports.flatMap(({ lane, report }) => {
    if (report === undefined) return [`${lane.padEnd(8)} ended without a report`]
    const { abandoned, cancelled, drained, stages } = report
    return [
      `${lane.padEnd(8)} ${drained} drained, ${cancelled} cancelled, ${abandoned} abandoned`,
      ...stages
        .filter(({ outcome }) => outcome !== "not needed")
        .map(
          ({ name, outcome, took }) => `         ${name.padEnd(15)}${millis(took).padStart(9)}  ${outcome}`
        )
    ]
  })
