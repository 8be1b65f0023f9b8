/**
 * A process that the parent started and answers for.
 *
 * Invariants
 * 1. It ends before its scope has closed: asked first, killed when it does not answer in time.
 * 2. It does not outlive the parent: the parent's exit kills it, and a parent that was killed itself leaves a closed
 *    channel behind, at which the child stops.
 * 3. Whoever waits for something that it says hears of its end instead, if that comes first.
 */
import { type ChildProcess, fork } from "node:child_process"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Command } from "../cli/parseArguments.ts"
import { endWith, type Sentence } from "../cli/Sentence.ts"
import type { Counts } from "../process/Meter.ts"
import type { Closing, FromChild, Ready, ShutdownReport, Signal, ToChild } from "../process/messages.ts"
import { Process } from "../process/Process.ts"
import type { Lane, TimelineEvent } from "../report/TimelineEvent.ts"

export interface Child {
  readonly lane: Lane
  readonly pid: number | undefined
  /** Gives it its command and waits until it can be used. */
  readonly start: (command: Command) => Effect.Effect<Ready, Sentence>
  readonly send: (message: ToChild) => void
  readonly exited: Effect.Effect<void>
  /** Asks it to end and waits; every further press of Ctrl-C is passed on. Kills it when the limit passes. */
  readonly stop: (limit: Duration.Input) => Effect.Effect<void, never, Process>
  /** What is alive in it now. */
  readonly count: Effect.Effect<Counts | undefined>
  readonly told: Told
}

/** What a child has said about its end. */
interface Told {
  closing: Closing | undefined
  report: ShutdownReport | undefined
  failure: string | undefined
  /** It did not end by itself. */
  killed: boolean
}

const entry = process.argv[1] as string

const alive = new Set<ChildProcess>()
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL")
})

/** Starts a process that loads its modules and waits for its command. */
export const startChild = (
  lane: Lane,
  on: { readonly said: (event: TimelineEvent) => void; readonly signal: (signal: Signal) => void }
): Effect.Effect<Child, never, Process | Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => launch(lane, on)),
    (child) => child.stop("3 seconds")
  )

const launch = (lane: Lane, on: Parameters<typeof startChild>[1]): Child => {
  // Its output would get between the parent's lines: stdout is not used, and what it says on stderr is an error.
  const child = fork(entry, ["supervised", lane], { stdio: ["ignore", "ignore", "inherit", "ipc"] })
  alive.add(child)
  const told: Told = { closing: undefined, report: undefined, failure: undefined, killed: false }
  const loaded = Deferred.makeUnsafe<void, Sentence>()
  const ready = Deferred.makeUnsafe<Ready, Sentence>()
  const exited = Deferred.makeUnsafe<void>()
  const counted = new Set<(counts: Counts | undefined) => void>()

  const hear = (message: FromChild) => {
    switch (message.type) {
      case "loaded":
        return Deferred.doneUnsafe(loaded, Effect.void)
      case "ready":
        return Deferred.doneUnsafe(ready, Effect.succeed(message.ready))
      case "said":
        return on.said(message.event)
      case "signal":
        return on.signal(message.signal)
      case "counts":
        for (const waiter of counted) waiter(message.counts)
        return counted.clear()
      case "stopped":
        told.report = message.report
        return
      case "failed":
        told.failure = message.text
        return
      case "closing":
        told.closing = message.closing
        return
    }
  }
  const over = () => {
    if (!alive.delete(child)) return
    const early = endWith(told.failure ?? `The ${lane} ended before it could be used.`)
    Deferred.doneUnsafe(loaded, early)
    Deferred.doneUnsafe(ready, early)
    for (const waiter of counted) waiter(undefined)
    counted.clear()
    Deferred.doneUnsafe(exited, Effect.void)
  }
  child.on("message", hear)
  child.on("exit", over)
  child.on("error", over)

  const send = (message: ToChild) => {
    if (child.connected) child.send(message, () => undefined)
  }
  const waitForEnd = Deferred.await(exited)
  const kill = Effect.suspend(() => {
    told.killed = true
    child.kill("SIGKILL")
    return waitForEnd
  })

  return {
    lane,
    pid: child.pid,
    send,
    told,
    exited: waitForEnd,
    start: (command) =>
      Effect.andThen(
        Deferred.await(loaded),
        Effect.suspend(() => {
          send({ type: "start", command })
          return Deferred.await(ready)
        })
      ),
    stop: (limit) =>
      Effect.gen(function* () {
        if (!alive.has(child)) return
        const { stop } = yield* Process
        send({ type: "stop" })
        const passOn = Effect.forever(
          Effect.andThen(
            stop.next,
            Effect.sync(() => send({ type: "stop" }))
          )
        )
        const inTime = yield* Effect.raceFirst(Effect.timeoutOption(waitForEnd, limit), passOn)
        if (inTime._tag === "None") yield* kill
      }),
    count: Effect.callback((resume) => {
      if (!alive.has(child)) return resume(Effect.succeed(undefined))
      const waiter = (counts: Counts | undefined) => resume(Effect.succeed(counts))
      counted.add(waiter)
      send({ type: "count" })
      return Effect.sync(() => counted.delete(waiter))
    })
  }
}
