import type { CancelReason } from "@curfew/reason"
import type * as Duration from "effect/Duration"
import { renderReport } from "./internal/renderReport.ts"

/**
 * What began a shutdown: a signal, the end of the program, the program's own wish, or a cancel of `run`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Trigger =
  | { readonly _tag: "Signal"; readonly signal: string }
  | { readonly _tag: "MainEnded" }
  | { readonly _tag: "Requested" }
  | { readonly _tag: "Cancelled"; readonly reason: CancelReason }

/**
 * What became of something the shutdown waited for: it ended by itself (`drained`), after it was cancelled, or not at
 * all (`abandoned`).
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Fate = "drained" | "cancelled" | "abandoned"

/**
 * One thing that the shutdown waited for.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ReportItem {
  readonly name: string
  /** The program itself, a task of its owner, a hook of a server, or clean-up that overran its budget. */
  readonly kind: "main" | "task" | "hook" | "clean-up"
  readonly fate: Fate
  /** How long the shutdown waited for it; for what was abandoned, until it gave up. */
  readonly took: Duration.Duration
  /** It ended with a failure or a defect, which also reached `OnUnhandled`. */
  readonly failed: boolean
  /**
   * How many it stands for: tasks of one name that began during the shutdown and ended by themselves are one item, with
   * the longest of their times. Else 1.
   */
  readonly count: number
}

/**
 * One phase of a shutdown.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ReportPhase {
  readonly phase: "stop" | "drain" | "force"
  readonly took: Duration.Duration
  /** It was `done`, its time was up, or a further signal moved on. */
  readonly endedBy: "done" | "limit" | "signal"
}

/**
 * What a shutdown did, as data.
 *
 * @see toText to print it.
 * @stability unstable
 * @since 0.1.0
 */
export interface Report {
  readonly trigger: Trigger
  /** Wall clock, milliseconds since 1970. */
  readonly startedAt: number
  readonly took: Duration.Duration
  readonly phases: ReadonlyArray<ReportPhase>
  /** Abandoned first, then cancelled, then drained; in each the longest first. */
  readonly items: ReadonlyArray<ReportItem>
}

/**
 * The report as a table that reads at a glance: what was left behind stands on top.
 *
 * **Example**
 *
 * ```ts
 * import * as Duration from "effect/Duration"
 * import { Report } from "@curfew/shutdown"
 *
 * const text = Report.toText({
 *   trigger: { _tag: "Signal", signal: "SIGTERM" },
 *   startedAt: 0,
 *   took: Duration.millis(5200),
 *   phases: [{ phase: "drain", took: Duration.seconds(5), endedBy: "limit" }],
 *   items: [
 *     {
 *       name: "POST /orders",
 *       kind: "task",
 *       fate: "cancelled",
 *       took: Duration.millis(5100),
 *       failed: false,
 *       count: 1
 *     }
 *   ]
 * })
 * text.split("\n")[0] // => "Shutdown after SIGTERM in 5.2 s: 0 drained, 1 cancelled, 0 abandoned"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const toText = (report: Report): string => renderReport(report)
