/**
 * The edge of a process: the one place where an Effect program meets signals, exit codes, uncaught errors and the
 * parent process.
 *
 * Invariants
 * 1. A process has one program, and ends when the program has ended and everything was measured.
 * 2. Every fiber of the program is counted from its start to its end, and so is every error that nobody handled.
 * 3. A child ends with its parent, however the parent ended: the channel to it closes, and a timer that keeps
 *    nothing alive ends what does not stop by itself.
 */
import { stuck } from "@curfew/scope"
import { inspectOnSignal } from "@curfew/shutdown/Node"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import { Sentence } from "../cli/Sentence.ts"
import { shutdownLines } from "../report/shutdown.ts"
import type { Lane, TimelineEvent } from "../report/TimelineEvent.ts"
import { Meter } from "./Meter.ts"
import type { Closing, FromChild, Signal } from "./messages.ts"
import type { ParentLink } from "./ParentLink.ts"
import { Process } from "./Process.ts"
import { Stop } from "./Stop.ts"

/** What a program leaves to be said once its process has been measured; gives the exit code. */
export type LastWords = (own: Closing) => number

export interface Setup {
  readonly lane: Lane
  readonly program: Effect.Effect<LastWords, Sentence, Process>
  /** The parent, for a process that has one. */
  readonly parent?: ParentLink | undefined
  /** Shows an event to the person who started the process by hand. */
  readonly show?: ((event: TimelineEvent) => void) | undefined
}

/** How long a process may take to become quiet before it is measured as it is, in milliseconds. */
const patience = 500

/** How many turns of the event loop in a row have to be quiet. */
const quietTurns = 10

/** How long a child outlives a parent that is gone, in milliseconds. */
const graceWithoutParent = 5_000

export const runProcess = ({ lane, parent, program, show }: Setup): void => {
  const meter = new Meter()
  const stop = new Stop()
  const moments = new Moments()
  const now = () => performance.timeOrigin + performance.now()
  // A role that cannot even start says why in one sentence, and nothing of what it closes.
  let usable = false
  const tell = (message: FromChild) => parent?.send(message)

  const say = (event: Omit<TimelineEvent, "at" | "lane">) => {
    const whole = { at: now(), lane, ...event }
    tell({ type: "said", event: whole })
    if (usable) show?.(whole)
  }

  // Survived, so that everything can still be closed and measured; the exit code tells.
  const unhandled = (error: unknown) => {
    meter.unhandled++
    const text = `unhandled: ${error instanceof Error ? error.message : String(error)}`
    say({ mark: "fault", text })
    if (parent === undefined) console.error(text)
  }
  process.on("unhandledRejection", unhandled)
  process.on("uncaughtException", unhandled)

  const press = () => stop.press()
  process.on("SIGTERM", press)
  // Whoever read the output has left, as `head` does: then there is nothing left to do for them.
  process.stdout.on("error", () => stop.pressForGood())
  // Ctrl-C reaches every process of the terminal. A child leaves it to its parent, which stops one after the other.
  process.on("SIGINT", parent === undefined ? press : () => undefined)

  parent?.listen({
    stop: press,
    signal: (signal) => moments.come(signal),
    count: () => tell({ type: "counts", counts: meter.read(Effect.runSync(stuck).length) }),
    gone: () => {
      stop.pressForGood()
      setTimeout(() => process.exit(1), graceWithoutParent).unref()
    }
  })

  const logger = Logger.make<unknown, void>(({ cause, logLevel, message }) => {
    if (!LogLevel.isGreaterThanOrEqualTo(logLevel, "Error")) return
    meter.errorLogs++
    const text = Array.isArray(message) ? message.join(" ") : String(message)
    console.error(`${lane}: ${text}${cause.reasons.length === 0 ? "" : ` ${Cause.pretty(cause)}`}`)
  })

  const context = Context.make(Metric.FiberRuntimeMetrics, meter.fiberMetrics).pipe(
    Context.add(Logger.CurrentLoggers, new Set([logger])),
    Context.add(Process, {
      meter,
      stop,
      supervised: parent !== undefined,
      say,
      now,
      signal: (signal) => tell({ type: "signal", signal }),
      awaitSignal: (signal) => moments.wait(signal),
      ready: (ready) =>
        Effect.sync(() => {
          usable = true
          tell({ type: "ready", ready })
          if (show !== undefined && ready.text !== "") console.log(ready.text)
        }),
      stopped: (report) =>
        Effect.sync(() => {
          tell({ type: "stopped", report })
          if (show !== undefined) for (const line of shutdownLines([{ lane, report }])) console.log(line)
        })
    })
  )

  const end = (exit: Exit.Exit<LastWords, Sentence>) =>
    whenQuiet(meter, now() + patience, now, () => {
      const closing: Closing = { counts: meter.read(Effect.runSync(stuck).length), tally: meter.tally }
      const told = exit._tag === "Success" ? exit.value(closing) : explain(exit.cause, tell)
      const code = told === 0 && meter.unhandled > 0 ? 1 : told
      const exitNow = () => process.exit(code)
      // Whatever was said is out before the process goes.
      if (parent === undefined) process.stdout.write("", exitNow)
      else parent.send({ type: "closing", closing }, exitNow)
    })

  const seen = inspectOnSignal({ print: (tree) => console.error(`what lives in the ${lane}:\n${tree}`) })
  Effect.runForkWith(context)(Effect.scoped(Effect.andThen(seen, program))).addObserver(end)
}

/** Tells why a program failed: a sentence as it is, and anything else as the mistake of this program that it is. */
const explain = (cause: Cause.Cause<Sentence>, tell: (message: FromChild) => void): number => {
  const found = Cause.findError(cause)
  if (Result.isSuccess(found) && found.success instanceof Sentence) {
    tell({ type: "failed", text: found.success.text })
    if (process.send === undefined) console.error(found.success.text)
    return found.success.exitCode
  }
  if (Cause.hasInterruptsOnly(cause)) return 130
  console.error(Cause.pretty(cause))
  return 70
}

/**
 * Calls back once nothing that could still be on its way out has been seen for some turns of the event loop, at the
 * latest when the patience ends: sockets close some turns after they were told to, and leave immediates behind.
 */
const whenQuiet = (meter: Meter, until: number, now: () => number, then: () => void): void => {
  let quiet = 0
  const look = () => {
    const { fibers, ports, sockets, timers } = meter.read(0)
    quiet = fibers + ports + sockets + timers === 0 ? quiet + 1 : 0
    if (quiet === quietTurns || now() > until) then()
    else setImmediate(look)
  }
  setImmediate(look)
}

/** The moments that other processes told of, and who waits for one. */
class Moments {
  readonly #come = new Set<string>()
  readonly #waiters = new Map<string, Set<() => void>>()

  come(signal: Signal): void {
    const key = `${signal.name} ${signal.call}`
    this.#come.add(key)
    for (const waiter of this.#waiters.get(key) ?? []) waiter()
    this.#waiters.delete(key)
  }

  wait(signal: Signal): Effect.Effect<void> {
    const key = `${signal.name} ${signal.call}`
    return Effect.callback((resume) => {
      if (this.#come.has(key)) return resume(Effect.void)
      const waiter = () => resume(Effect.void)
      const waiters = this.#waiters.get(key) ?? new Set()
      this.#waiters.set(key, waiters.add(waiter))
      return Effect.sync(() => waiters.delete(waiter))
    })
  }
}
