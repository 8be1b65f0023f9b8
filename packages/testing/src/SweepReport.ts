import type { Finding, Position } from "./Finding.ts"

/**
 * What a sweep found.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface SweepReport {
  readonly name: string | undefined
  /** True when nothing was broken. */
  readonly ok: boolean
  /** The places for a cancel in a run that is not cancelled: the operations before which a fiber can have to wait. */
  readonly steps: number
  /** How often the program was run with a cancel. */
  readonly runs: number
  /** False when not every place was tried, because there were too many or because the program itself is broken. */
  readonly complete: boolean
  readonly findings: ReadonlyArray<Finding>
}

const stepsOf = (findings: ReadonlyArray<Finding>): string => {
  const steps = [...new Set(findings.map(({ step }) => step))].sort((a, b) => a - b)
  const ranges: Array<string> = []
  for (let i = 0; i < steps.length; ) {
    let end = i
    while ((steps[end + 1] ?? Number.NaN) === (steps[end] as number) + 1) end++
    ranges.push(end === i ? `${steps[i]}` : `${steps[i]}–${steps[end]}`)
    i = end + 1
  }
  const shown = ranges.slice(0, 8)
  return `step${steps.length === 1 ? "" : "s"} ${shown.join(", ")}${ranges.length > shown.length ? ", …" : ""}`
}

const cancelled: Record<Finding["mode"], string> = {
  none: "without any cancel",
  root: "root cancelled",
  any: "the running fiber cancelled",
  twice: "root cancelled twice",
  finalizers: "root cancelled, then a fiber of its clean-up",
  schedule: "in this schedule",
  reset: "the client's socket reset",
  abort: "the request aborted by its client",
  halfClose: "the client's side of the connection closed",
  response: "the client's socket reset at a part of the answer",
  cancel: "the call cancelled by its client",
  disconnect: "the client's connection destroyed"
}

/**
 * At which steps and by which ways of cancelling something was found, as text.
 *
 * @stability internal
 * @since 0.1.0
 */
export const ways = (findings: ReadonlyArray<Finding>): string => {
  const found = new Map<string, Array<Finding>>()
  for (const finding of findings) {
    const { mode, state } = finding
    const way =
      mode === "none" || mode === "schedule" ? cancelled[mode] : `${cancelled[mode]}, ${state} state`
    found.set(way, [...(found.get(way) ?? []), finding])
  }
  return [...found]
    .map(([way, some]) => (some[0]?.mode === "none" ? way : `${stepsOf(some)} (${way})`))
    .join("; ")
}

/**
 * The findings of one kind and probe, together, in the order in which they were found.
 *
 * @stability internal
 * @since 0.1.0
 */
export const groups = (findings: ReadonlyArray<Finding>): ReadonlyArray<ReadonlyArray<Finding>> => {
  const found = new Map<string, Array<Finding>>()
  for (const finding of findings) {
    const key = JSON.stringify([finding.kind, finding.probe])
    const group = found.get(key)
    if (group === undefined) found.set(key, [finding])
    else group.push(finding)
  }
  return [...found.values()]
}

/**
 * A position as lines of text.
 *
 * @stability internal
 * @since 0.1.0
 */
export const formatPosition = (position: Position): ReadonlyArray<string> => [
  `    at ${position.operation}${position.masked ? " (masked)" : ""} of fiber ${position.fiber}${
    position.span === undefined ? "" : `, span ${position.span}`
  }${position.code === undefined ? "" : `: ${position.code}`}`,
  ...position.trace.slice(0, 6).map((place) => `       ${place}`),
  ...position.calls.slice(0, 4).map((call) => `       in ${call}`),
  ...(position.forkedAt === undefined ? [] : [`       forked at ${position.forkedAt}`])
]

/**
 * A report as text, for a terminal or the message of a failed test.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { formatSweep, sweep } from "@curfew/testing"
 *
 * const report = Effect.runSync(sweep({ name: "nothing", setup: Effect.succeed(Effect.void) }))
 * formatSweep(report) // => `nothing: ${report.runs} runs over ${report.steps} steps, nothing broken`
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const formatSweep = (report: SweepReport): string => {
  const name = report.name ?? "the program"
  const head = `${name}: ${report.runs} run${report.runs === 1 ? "" : "s"} over ${report.steps} step${
    report.steps === 1 ? "" : "s"
  }, ${
    report.ok
      ? "nothing broken"
      : `${report.findings.length} finding${report.findings.length === 1 ? "" : "s"}`
  }${report.complete ? "" : " (not every place was tried)"}`
  return [
    head,
    ...groups(report.findings).flatMap((group) => {
      const [first] = group as readonly [Finding, ...ReadonlyArray<Finding>]
      return [
        `  ${first.kind}${first.probe === undefined ? "" : ` (${first.probe})`}: ${ways(group)}`,
        `    ${first.message}`,
        ...(first.position === undefined ? [] : formatPosition(first.position)),
        ...first.waiting
          .slice(0, 3)
          .flatMap((position) => ["    still there:", ...formatPosition(position).map((line) => `  ${line}`)])
      ]
    })
  ].join("\n")
}
