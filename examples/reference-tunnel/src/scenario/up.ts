/** The parent: starts the four processes, shows what they did, and answers for their end. */
import { CancelReason, describe } from "@curfew/reason"
import * as Effect from "effect/Effect"
import type { Command } from "../cli/parseArguments.ts"
import { endWith, type Sentence } from "../cli/Sentence.ts"
import type { Counts } from "../process/Meter.ts"
import type { Closing, Signal } from "../process/messages.ts"
import { Process } from "../process/Process.ts"
import type { LastWords } from "../process/runProcess.ts"
import { leftOver, since } from "../report/leftOver.ts"
import { shutdownLines } from "../report/shutdown.ts"
import { problems, summarize } from "../report/summary.ts"
import { type Lane, lanes, type TimelineEvent } from "../report/TimelineEvent.ts"
import { eventLines, paint, type Style, timeline } from "../report/timeline.ts"
import { type Child, startChild } from "./Child.ts"
import { howToCall } from "./howToCall.ts"

type Up = Extract<Command, { _tag: "up" }>
type Children = Readonly<Record<Lane, Child>>

/** The longest that loading, starting and the scenario may take together. */
const patience = "50 seconds"

/** The longest that one process may take to shut down: the stages' own limits and some more. */
const shutdownLimit = "12 seconds"

export const up = (options: Up, style: Style): Effect.Effect<LastWords, Sentence, Process> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { now } = yield* Process
      const began = now()
      const show = new Display(style)
      const children = yield* startAll(show)
      const started = yield* interruptible(startRoles(children, options))
      if (started === undefined) {
        yield* stopAll(children)
        return () => {
          // Not on stdout, where the last line of `--once` is JSON.
          console.error("Stopped before the scenario had ended.")
          return 130
        }
      }

      if (options.once) {
        yield* stopAll(children)
        const scenarioMs = show.timeline()
        show.leftOver("Left over, after everything has closed", closingCounts(children))
        return (own: Closing) => {
          const closings = lanes.flatMap((lane) => children[lane].told.closing ?? [])
          const abandoned = lanes.filter((lane) => {
            const { closing, killed } = children[lane].told
            return killed || closing === undefined
          }).length
          // The parent's own errors and fibers count as well; it makes no calls.
          const summary = summarize([...closings, { ...own, tally: {} }], {
            abandoned,
            durationMs: now() - began,
            scenarioMs
          })
          const { failure } = children.client.told
          const wrong = [...(failure === undefined ? [] : [failure]), ...problems(summary)]
          show.lines(["", ...wrong.map((problem) => paint(`Not as it should be: ${problem}`, "red", style))])
          console.log(JSON.stringify(summary))
          return summary.ok ? 0 : 1
        }
      }

      show.timeline()
      show.leftOver("Left over by these calls", started.leftOver, true)
      show.lines(howToCall(started.port))
      show.live = true
      const ended = yield* stayUp(children)
      const draining = CancelReason.Shutdown({ phase: "drain" })
      show.lines([
        "",
        paint(`${ended ?? `Ctrl-C: ${describe(draining)}`}; Ctrl-C goes on to the next stage`, "bold", style)
      ])
      yield* stopAll(children)
      const servers = lanes.filter((lane) => lane !== "client")
      show.lines(["", paint("Shutdown", "bold", style)])
      show.lines(shutdownLines(servers.map((lane) => ({ lane, report: children[lane].told.report }))))
      show.leftOver("Left over, after everything has closed", closingCounts(children))
      return () => (ended === undefined && lanes.every((lane) => !children[lane].told.killed) ? 0 : 1)
    })
  )

const closingCounts = (children: Children) =>
  lanes.map((lane) => ({ lane, counts: children[lane].told.closing?.counts }))

/** Runs the start unless Ctrl-C comes first. */
const interruptible = <A>(
  work: Effect.Effect<A, Sentence, Process>
): Effect.Effect<A | undefined, Sentence, Process> =>
  Effect.flatMap(Process, ({ stop }) =>
    Effect.raceFirst(
      Effect.timeoutOrElse(work, {
        duration: patience,
        orElse: () => endWith("The processes did not come up and through the scenario within 50 seconds.")
      }),
      Effect.as(stop.requested, undefined)
    )
  )

/** All four at once: loading their modules is what takes longest. */
const startAll = (show: Display) =>
  Effect.gen(function* () {
    const started: Partial<Record<Lane, Child>> = {}
    const on = {
      said: (event: TimelineEvent) => show.said(event),
      // What a process tells of a moment is for the client, which waits for it.
      signal: (signal: Signal) => started.client?.send({ type: "signal", signal })
    }
    for (const lane of lanes) started[lane] = yield* startChild(lane, on)
    return started as Children
  })

/** From the back to the front, then the client's scenario, to its end. */
const startRoles = ({ agent, backend, client, gateway }: Children, { once, plant, port }: Up) =>
  Effect.gen(function* () {
    const { port: backendPort = 0 } = yield* backend.start({
      _tag: "backend",
      port: 0,
      plant: plant === "fiber"
    })
    const { port: publicPort = 0, tunnelPort = 0 } = yield* gateway.start({
      _tag: "gateway",
      port,
      tunnelPort: 0
    })
    yield* agent.start({
      _tag: "agent",
      gateway: `127.0.0.1:${tunnelPort}`,
      backend: `127.0.0.1:${backendPort}`,
      plant: plant === "error"
    })
    const servers = [gateway, agent, backend]
    const before = once ? [] : yield* Effect.forEach(servers, steady)
    yield* client.start({ _tag: "client", gateway: `127.0.0.1:${publicPort}`, plant: plant === "stream" })
    yield* client.exited
    if (client.told.failure !== undefined && !once) return yield* endWith(client.told.failure)
    const after = once ? [] : yield* Effect.forEach(servers, steady)
    const left = after.map((counts, index) => {
      const earlier = before[index]
      const known = counts !== undefined && earlier !== undefined
      return { lane: (servers[index] as Child).lane, counts: known ? since(earlier, counts) : undefined }
    })
    return {
      port: publicPort,
      leftOver: [{ lane: client.lane, counts: client.told.closing?.counts }, ...left]
    }
  })

/** How many answers in a row have to be the same, and how many are asked for at most. */
const steadyAnswers = 10
const mostAnswers = 500

/** What is alive in a process that stays up, once that does not change any more. */
const steady = (child: Child): Effect.Effect<Counts | undefined> =>
  Effect.gen(function* () {
    let last = yield* child.count
    for (let same = 1, asked = 1; same < steadyAnswers && asked < mostAnswers; asked++) {
      const next = yield* child.count
      same = JSON.stringify(next) === JSON.stringify(last) ? same + 1 : 1
      last = next
    }
    return last
  })

/** Waits for Ctrl-C, or for a process that ends unasked; then gives the sentence that says so. */
const stayUp = (children: Children): Effect.Effect<string | undefined, never, Process> =>
  Effect.flatMap(Process, ({ stop }) =>
    Effect.raceAllFirst<Effect.Effect<string | undefined>>([
      Effect.as(stop.requested, undefined),
      ...lanes
        .filter((lane) => lane !== "client")
        .map((lane) =>
          Effect.as(children[lane].exited, `The ${lane} has ended unasked, so the others end too`)
        )
    ])
  )

/** From the front to the back: nobody is sent away while somebody in front still sends calls. */
const stopAll = (children: Children): Effect.Effect<void, never, Process> =>
  Effect.forEach(lanes, (lane) => children[lane].stop(shutdownLimit), { discard: true })

/** Collects what happens, and shows it: at once when the processes stay up, otherwise together. */
class Display {
  readonly #style: Style
  #events: Array<TimelineEvent> = []
  #zero = 0
  live = false

  constructor(style: Style) {
    this.#style = style
  }

  lines(lines: ReadonlyArray<string>): void {
    for (const line of lines) console.log(line)
  }

  said(event: TimelineEvent): void {
    if (!this.live) this.#events.push(event)
    else this.lines(eventLines(event, this.#zero, this.#style))
  }

  /** Shows what has happened so far; gives how long that took. */
  timeline(): number {
    const times = this.#events.map(({ at }) => at)
    this.#zero = Math.min(...times)
    this.lines(timeline(this.#events, this.#style))
    this.#events = []
    return times.length === 0 ? 0 : Math.max(...times) - this.#zero
  }

  leftOver(title: string, columns: Parameters<typeof leftOver>[0], keep = false): void {
    this.lines(["", paint(title, "bold", this.#style), ...leftOver(columns, this.#style, keep)])
  }
}
