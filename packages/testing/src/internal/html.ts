/**
 * The page that shows what a sweep found.
 *
 * Invariants
 * 1. One file: no script, style, font or image from elsewhere.
 * 2. The data stands in the page as JSON that cannot end its script element.
 */
import { readFileSync } from "node:fs"
import type { Finding } from "../Finding.ts"
import { formatPosition, groups, type SweepReport, ways } from "../SweepReport.ts"
import type { Timeline } from "../Timeline.ts"
import { drawPage } from "./pageScript.ts"
import { style } from "./pageStyle.ts"

export interface PageData {
  readonly reports: ReadonlyArray<{
    readonly name: string
    readonly ok: boolean
    readonly verdict: string
    readonly summary: string
    readonly strips: ReadonlyArray<{ readonly label: string; readonly cells: ReadonlyArray<string> }>
    readonly cards: ReadonlyArray<{
      readonly kind: string
      readonly probe: string | undefined
      readonly message: string
      readonly where: string
      readonly position: ReadonlyArray<string>
      readonly timeline: Pick<Timeline, "fibers" | "events" | "exit" | "broken"> | undefined
      readonly without: string
    }>
  }>
}

const labels: ReadonlyArray<readonly [mode: Finding["mode"], state: Finding["state"], label: string]> = [
  ["root", "fresh", "root, fresh"],
  ["root", "kept", "root, kept"],
  ["any", "fresh", "any, fresh"],
  ["any", "kept", "any, kept"],
  ["twice", "fresh", "twice"],
  ["finalizers", "fresh", "clean-up"]
]

const stripsOf = ({ findings, steps }: SweepReport): PageData["reports"][number]["strips"] =>
  labels.flatMap(([mode, state, label]) => {
    const some = findings.filter((finding) => finding.mode === mode && finding.state === state)
    if (some.length === 0 && (mode !== "root" || state !== "fresh")) return []
    const length = Math.min(400, Math.max(steps, ...some.map(({ step }) => step)))
    const cells = Array.from({ length }, (_, index) =>
      [...new Set(some.filter(({ step }) => step === index + 1).map(({ kind }) => kind))].join(", ")
    )
    return [{ label, cells }]
  })

/** A report with the timelines of its groups of findings, in their order. */
export interface Shown {
  readonly report: SweepReport
  readonly timelines: ReadonlyArray<Timeline | undefined>
}

/** The line of a place, as it stands in its file. */
const lines = () => {
  const files = new Map<string, ReadonlyArray<string>>()
  return (place: string | undefined): string | undefined => {
    const [, file, line] = /^(.*):(\d+):\d+$/.exec(place ?? "") ?? []
    if (file === undefined || line === undefined) return undefined
    if (!files.has(file)) {
      try {
        files.set(file, readFileSync(file, "utf8").split("\n"))
      } catch {
        files.set(file, [])
      }
    }
    return files.get(file)?.[Number(line) - 1]?.trim()
  }
}

/** The events with the program's own lines in place of what is known of their functions. */
const withLines = ({ broken, events, exit, fibers }: Timeline) => {
  const lineAt = lines()
  return {
    fibers,
    exit,
    broken,
    events: events.map((event) => ({ ...event, code: lineAt(event.source) ?? event.code }))
  }
}

const dataOf = (shown: ReadonlyArray<Shown>): PageData => ({
  reports: shown.map(({ report, timelines }) => ({
    name: report.name ?? "the program",
    ok: report.ok,
    verdict: `${groups(report.findings).length} broken`,
    summary: `${report.steps} steps, cancelled ${report.runs} times${
      report.complete ? ", at every place" : "; not every place was tried"
    }`,
    strips: stripsOf(report),
    cards: groups(report.findings).map((group, index) => {
      const [first] = group as readonly [Finding, ...ReadonlyArray<Finding>]
      const timeline = timelines[index]
      const position = first.position
      return {
        kind: first.kind,
        probe: first.probe,
        message: first.message,
        where: ways(group),
        position: position === undefined ? [] : formatPosition(position).map((line) => line.trim()),
        timeline: timeline === undefined ? undefined : withLines(timeline),
        without: "No timeline: this shows only with the state of the runs before it."
      }
    })
  }))
})

const escaped = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")

/** The page as text. */
export const toHtml = (title: string, shown: ReadonlyArray<Shown>): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<style>${style}</style>
</head>
<body>
<header><h1>${escaped(title)}</h1><p>Each program was cancelled at every step. Red is a step at which a cancel breaks
something. In a timeline a column is a fiber (hollow dots: masked), a bar is something held, and a red bar was
never given back.</p></header>
<main></main>
<script>
(${drawPage.toString()})(${JSON.stringify(dataOf(shown)).replaceAll("<", "\\u003c")})
</script>
</body>
</html>
`
