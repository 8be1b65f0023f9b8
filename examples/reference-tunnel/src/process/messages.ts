/** What the parent and its processes say to each other. Everything is plain data. */
import type { Command } from "../cli/parseArguments.ts"
import type { TimelineEvent } from "../report/TimelineEvent.ts"
import type { Counts } from "./Meter.ts"

/** A moment in one call that another process waits for. */
export interface Signal {
  readonly name: "write waits" | "handler ended" | "calling stream closed" | "called stream closed"
  readonly call: string
}

/** Where a role can be reached. */
export interface Ready {
  /** What to tell a person who started the role by hand. */
  readonly text: string
  readonly port?: number | undefined
  readonly tunnelPort?: number | undefined
}

export type StageName = "stop accepting" | "drain" | "cancel" | "force"

export interface Stage {
  readonly name: StageName
  readonly took: number
  readonly outcome: "done" | "out of time" | "skipped by a second Ctrl-C" | "not needed"
}

/** What a staged shutdown did with the calls that it found. */
export interface ShutdownReport {
  readonly drained: number
  readonly cancelled: number
  readonly abandoned: number
  readonly stages: ReadonlyArray<Stage>
}

/** What a process measured when it had closed everything. */
export interface Closing {
  readonly counts: Counts
  readonly tally: Readonly<Record<string, number>>
}

export type FromChild =
  | { readonly type: "loaded" }
  | { readonly type: "said"; readonly event: TimelineEvent }
  | { readonly type: "signal"; readonly signal: Signal }
  | { readonly type: "ready"; readonly ready: Ready }
  | { readonly type: "stopped"; readonly report: ShutdownReport }
  | { readonly type: "counts"; readonly counts: Counts }
  | { readonly type: "failed"; readonly text: string }
  | { readonly type: "closing"; readonly closing: Closing }

export type ToChild =
  | { readonly type: "start"; readonly command: Command }
  | { readonly type: "signal"; readonly signal: Signal }
  | { readonly type: "stop" }
  | { readonly type: "count" }
