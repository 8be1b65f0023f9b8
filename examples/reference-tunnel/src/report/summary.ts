import type { Counts } from "../process/Meter.ts"
import type { Closing } from "../process/messages.ts"
import { plan, tallies } from "../scenario/plan.ts"

/** What `--once` prints as its last line. Every number was measured in that run. */
export interface Summary {
  readonly calls: number
  readonly answered: number
  readonly handled: number
  readonly cancelled: number
  readonly cancelledBy: { readonly client: number; readonly deadline: number; readonly limit: number }
  readonly cancelledInAWrite: number
  readonly unhandled: number
  readonly leakedFibers: number
  readonly openStreams: number
  readonly listeners: number
  readonly timers: number
  readonly ports: number
  readonly sockets: number
  readonly stuck: number
  readonly lateWrites: number
  readonly errorLogs: number
  /** Processes that had to be killed, or that ended without a measurement. */
  readonly abandoned: number
  /** The whole run: loading and starting too. */
  readonly durationMs: number
  /** The timeline, from its first event to its last. */
  readonly scenarioMs: number
  readonly ok: boolean
}

/** Adds up what the processes measured and compares it with the plan. */
export const summarize = (
  closings: ReadonlyArray<Closing>,
  run: { readonly abandoned: number; readonly durationMs: number; readonly scenarioMs: number }
): Summary => {
  const sum = (key: keyof Counts) => closings.reduce((total, { counts }) => total + counts[key], 0)
  const tally = (name: string) => closings.reduce((total, closing) => total + (closing.tally[name] ?? 0), 0)
  const cancelledBy = {
    client: tally(tallies.client),
    deadline: tally(tallies.deadline),
    limit: tally(tallies.limit)
  }
  const measured = {
    calls: tally("calls"),
    answered: tally("answered"),
    handled: tally("handled"),
    cancelled: cancelledBy.client + cancelledBy.deadline + cancelledBy.limit,
    cancelledBy,
    cancelledInAWrite: tally("cancelled in a write"),
    unhandled: sum("unhandled"),
    leakedFibers: sum("fibers"),
    openStreams: sum("openStreams"),
    listeners: sum("listeners"),
    timers: sum("timers"),
    ports: sum("ports"),
    sockets: sum("sockets"),
    stuck: sum("stuck"),
    lateWrites: sum("lateWrites"),
    errorLogs: sum("errorLogs"),
    abandoned: run.abandoned,
    durationMs: Math.round(run.durationMs),
    scenarioMs: Math.round(run.scenarioMs)
  }
  return { ...measured, ok: problems(measured).length === 0 }
}

/** What is not as it should be, one sentence each. */
export const problems = (measured: Omit<Summary, "ok">): ReadonlyArray<string> => {
  const found: Array<string> = []
  const expect = (name: string, value: number, wanted: number) => {
    if (value !== wanted) found.push(`${name}: ${value}, where it should be ${wanted}.`)
  }
  expect("calls", measured.calls, plan.calls)
  expect("answered calls", measured.answered, plan.answered)
  expect("handled calls", measured.handled, plan.calls)
  expect("cancelled by the client", measured.cancelledBy.client, plan.cancelledBy.client)
  expect("cancelled by a deadline", measured.cancelledBy.deadline, plan.cancelledBy.deadline)
  expect("cancelled by the server's limit", measured.cancelledBy.limit, plan.cancelledBy.limit)
  expect("cancelled in a write", measured.cancelledInAWrite, plan.cancelledInAWrite)
  expect("unhandled errors", measured.unhandled, 0)
  expect("leaked fibers", measured.leakedFibers, 0)
  expect("open streams", measured.openStreams, 0)
  expect("listeners", measured.listeners, 0)
  expect("timers", measured.timers, 0)
  expect("ports", measured.ports, 0)
  expect("sockets", measured.sockets, 0)
  expect("stuck clean-up", measured.stuck, 0)
  expect("late writes", measured.lateWrites, 0)
  expect("error logs", measured.errorLogs, 0)
  expect("processes left behind", measured.abandoned, 0)
  return found
}
