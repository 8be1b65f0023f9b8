import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { Said } from "../report/TimelineEvent.ts"
import type { Meter } from "./Meter.ts"
import type { Ready, ShutdownReport, Signal } from "./messages.ts"
import type { Stop } from "./Stop.ts"

/** What a role knows of the process it runs in. */
export class Process extends Context.Service<
  Process,
  {
    readonly meter: Meter
    readonly stop: Stop
    /** True below a parent that shows the timeline; false when the role was started by hand. */
    readonly supervised: boolean
    /** Says what happened. May be called from callbacks. */
    readonly say: (said: Said) => void
    /** Milliseconds on a clock that is the same in all processes of this machine. */
    readonly now: () => number
    /** Tells the other processes of a moment they may wait for. */
    readonly signal: (signal: Signal) => void
    /** Waits for such a moment in another process, also when it has come already. */
    readonly awaitSignal: (signal: Signal) => Effect.Effect<void>
    /** Tells the parent, or the person, that the role can be used now. */
    readonly ready: (ready: Ready) => Effect.Effect<void>
    /** Hands over what a staged shutdown has done. */
    readonly stopped: (report: ShutdownReport) => Effect.Effect<void>
  }
>()("curfew-example/Process") {}
