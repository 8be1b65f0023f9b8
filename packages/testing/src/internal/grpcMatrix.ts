/**
 * One cell of the gRPC matrix: a departure, a kind of call, a kind of endpoint, and a server of its own.
 *
 * Invariants
 * 1. The handler waits at a gate, so that it ends by itself only when the cell lets it.
 * 2. Time is real. An event is waited for, up to the patience of the matrix; that something does not happen is looked at
 *    some turns of the event loop later.
 * 3. What is wrong is collected, and what happened is logged, so that one run says all that it can.
 * 4. What was there before the cell is counted before it, and what is there after it may not be more.
 */
import type { EventEmitter } from "node:events"
import * as grpc from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { NotConformant } from "../Disconnects.ts"
import type { GrpcConnection } from "../grpc.ts"
import type {
  GrpcCell,
  GrpcColumn,
  GrpcKind,
  GrpcMatrixCall,
  GrpcMatrixDriver,
  GrpcMatrixEndpoint,
  GrpcOutcome
} from "../grpcDisconnects.ts"
import { callOver, definition, part, parts, stockHandlers, streams, takesStream } from "./grpcCalling.ts"
import { type Calling, type Fate, type Row, rows, type Stage, turns } from "./grpcDepartures.ts"

const columns: ReadonlyArray<GrpcColumn> = ["unmarked", "cancellable", "grace", "detached", "stock"]
const grace = Duration.millis(80)
const gone = "ClientGone"
/** Turns after which something that has not happened does not happen. */
const settled = 20
/** Turns within which a marked handler has been interrupted once the server knows. */
const atOnce = 5

interface Moment {
  readonly turn: number
  readonly at: number
  /** When that turn began: no later than anything that the server did in it before it told the handler. */
  readonly since: number
}

/**
 * Whether an end came after a grace that began when the server knew. Its timer is set before the handler is told, in the same
 * turn, and a busy machine may stop the process between the two. Timers of the system may come one millisecond early.
 */
const outlasted = (end: Moment, knew: Moment): boolean => end.at - knew.since >= Duration.toMillis(grace) - 2

/** What one handler saw. */
interface Sighting {
  readonly told: Array<Moment & { readonly reason: string }>
  readonly onGone: Array<string>
  readonly guarded: Array<string>
  completed: boolean
  requests: "open" | "ended" | "failed" | "stopped"
  ended: (Moment & { readonly exit: Exit.Exit<unknown, unknown>; readonly reason: string }) | undefined
  raw: EventEmitter | undefined
  listeners: number
}

const watchedEvents = ["drain", "readable", "cancelled"]
const listenersOf = (raw: EventEmitter): number =>
  watchedEvents.reduce((sum, event) => sum + raw.listenerCount(event), 0)

/** What the process holds, by kind. */
const resources = (): Map<string, number> => {
  const counts = new Map<string, number>()
  for (const name of process.getActiveResourcesInfo()) {
    if (/Timeout|TCP|Process|Pipe/.test(name)) counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  counts.set(
    "listener of the process",
    process.eventNames().reduce((sum, event) => sum + process.listenerCount(event), 0)
  )
  return counts
}

type Ending = "never" | "interrupted" | "graced" | "runsOn" | "completes"

const endingOf = (fate: Fate, column: GrpcColumn, kind: GrpcKind): Ending => {
  if (fate._tag === "never" || fate._tag === "completes") return fate._tag
  if (fate._tag === "stopped" || column === "cancellable") return "interrupted"
  if (column === "grace") return "graced"
  return column === "unmarked" && streams(kind) ? "interrupted" : "runsOn"
}

/** What became of a handler that is not stock; when that was has been checked, and is no question of a busy machine. */
const wordsOf = (
  sighting: Sighting | undefined,
  knew: Moment | undefined,
  ending: Ending,
  reasons: ReadonlyArray<string>
): string => {
  if (sighting === undefined) return "does not start"
  const { ended } = sighting
  if (ended === undefined) return "does not end"
  if (Exit.isSuccess(ended.exit)) return knew === undefined ? "ends" : "runs on"
  // Where chance decides between two reasons, the table has the first.
  const reason = reasons.length > 1 && reasons.includes(ended.reason) ? reasons[0] : ended.reason
  return ending === "graced" ? `after the grace: ${reason}` : `interrupted: ${reason}`
}

const stockEvents = ["cancelled", "end", "drain"]
const words = (events: ReadonlyArray<string>): string =>
  events.length === 0 ? "nothing" : events.join(" and ")

const monotonic = /* @__PURE__ */ Effect.clockWith((clock) =>
  Effect.map(clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)
)

const oneCell = <E>(
  driver: GrpcMatrixDriver<E>,
  row: Row,
  column: GrpcColumn,
  kind: GrpcKind,
  patience: Duration.Duration,
  problems: Array<string>,
  log: Array<string>
): Effect.Effect<GrpcOutcome, E, Scope.Scope> =>
  Effect.gen(function* () {
    const fate = row.fate(kind, driver.eager === true)
    const ending = endingOf(fate, column, kind)
    const stock = column === "stock"
    const check = (holds: boolean, problem: string): void => {
      if (!holds) problems.push(problem)
    }
    /** Waits for an event; what waits behind it goes on without it. */
    const event = <A, R>(
      wait: Effect.Effect<A, never, R>,
      what: string
    ): Effect.Effect<A | undefined, never, R> =>
      Effect.timeoutOrElse(wait, {
        duration: patience,
        orElse: () =>
          Effect.sync(() => {
            problems.push(`${what} does not come`)
            return undefined
          })
      })
    const until = (holds: () => boolean | Effect.Effect<boolean>, what: string): Effect.Effect<unknown> => {
      const look: Effect.Effect<void> = Effect.suspend(() => {
        const held = holds()
        const value = Effect.isEffect(held) ? held : Effect.succeed(held)
        return Effect.flatMap(value, (yes) => (yes ? Effect.void : Effect.andThen(Effect.yieldNow, look)))
      })
      return event(look, what)
    }

    const scope = yield* Effect.scope
    const clock = yield* Effect.clockWith(Effect.succeed)
    const millis = (): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
    let turn = 0
    let since = millis()
    const counting = Effect.whileLoop({
      while: () => true,
      body: () => Effect.yieldNow,
      step: () => {
        turn++
        since = millis()
      }
    })
    const counter = yield* Effect.forkIn(counting, scope)
    const moment = (): Moment => ({ turn, at: millis(), since })

    const gate = Deferred.makeUnsafe<void>()
    const reached = Deferred.makeUnsafe<void>()
    const told = Deferred.makeUnsafe<void>()
    const ended = Deferred.makeUnsafe<void>()
    const goOn: Array<() => void> = []
    const open = Effect.sync(() => {
      log.push("the gate opens")
      Deferred.doneUnsafe(gate, Effect.void)
      for (const step of goOn.splice(0)) step()
    })
    const seen: Array<Sighting> = []
    const stockSaw = new Set<string>()
    let left: Moment | undefined
    let produced = 0

    // ── the handler ──────────────────────────────────────────────────────────────────────────────────────────

    const begin = (call: GrpcMatrixCall): Effect.Effect<void, never, Scope.Scope> =>
      Effect.gen(function* () {
        const sighting: Sighting = {
          told: [],
          onGone: [],
          guarded: [],
          completed: false,
          requests: "open",
          ended: undefined,
          raw: call.raw,
          listeners: listenersOf(call.raw)
        }
        seen.push(sighting)
        log.push("the handler starts")
        yield* Effect.addFinalizer((exit) =>
          Effect.map(call.reason, (reason) => {
            const how =
              Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
                ? `interrupted for ${reason}`
                : exit._tag
            log.push(`the handler ends: ${how}`)
            sighting.ended = { ...moment(), exit, reason }
            Deferred.doneUnsafe(ended, Effect.void)
          })
        )
        yield* call.guard((reason) => note(sighting.guarded, reason))
        yield* call.onPeerGone((reason) => note(sighting.onGone, reason))
        // These two belong to the cell: they go on asking when the handler has ended.
        const asks = Effect.map(call.peerGone, (reason) => {
          log.push(`told of ${reason}`)
          sighting.told.push({ ...moment(), reason })
          Deferred.doneUnsafe(told, Effect.void)
        })
        yield* Effect.forkIn(asks, scope, { startImmediately: true })
        const completes = Effect.map(call.completed, () => {
          log.push("completed")
          sighting.completed = true
        })
        yield* Effect.forkIn(completes, scope, { startImmediately: true })
        if (call.requests === undefined) return
        const drains = Effect.onExit(Stream.runDrain(call.requests), (exit) =>
          Effect.sync(() => {
            sighting.requests = Exit.isSuccess(exit)
              ? "ended"
              : Cause.hasInterruptsOnly(exit.cause)
                ? "stopped"
                : "failed"
          })
        )
        yield* Effect.forkScoped(Effect.ignore(drains), { startImmediately: true })
      })

    const waits = Effect.suspend(() => {
      log.push("the handler waits")
      Deferred.doneUnsafe(reached, Effect.void)
      return Effect.as(Deferred.await(gate), "answer")
    })
    const written =
      row.writes === "much"
        ? Stream.map(Stream.range(1, parts), () => {
            produced++
            return part
          })
        : row.writes === "one"
          ? Stream.make("part")
          : Stream.empty

    const endpoint: GrpcMatrixEndpoint = {
      column,
      definition,
      answer: (call) => Effect.andThen(begin(call), waits),
      answers: (call) =>
        Stream.flatMap(Stream.fromEffect(begin(call)), () =>
          Stream.concat(written, Stream.fromEffect(waits))
        ),
      stock: stockHandlers({
        sees: (event) => {
          log.push(`a stock handler sees ${event}`)
          stockSaw.add(event)
        },
        reached: () => {
          log.push("a stock handler waits")
          Deferred.doneUnsafe(reached, Effect.void)
        },
        onOpen: (step) => {
          goOn.push(step)
        },
        writes: row.writes ?? "none",
        ended: () => Deferred.doneUnsafe(ended, Effect.void)
      }),
      grace,
      timeLimit: row.settings?.timeLimit,
      drain: row.settings?.drain ?? Duration.zero,
      keepalive: row.settings?.keepalive
    }

    // ── the act ──────────────────────────────────────────────────────────────────────────────────────────────

    const serving = yield* Scope.make()
    yield* Effect.addFinalizer((exit) => Scope.close(serving, exit))
    const link = yield* Scope.provide(driver.open(endpoint), serving)
    const connections: Array<GrpcConnection> = []
    yield* Effect.addFinalizer(() => Effect.sync(() => closeAll(connections)))
    let stopping: Effect.Effect<unknown> = Effect.void
    const still: Effect.Effect<void> = Effect.suspend(() => {
      const before = produced
      return Effect.flatMap(turns(50), () => (produced > 0 && produced === before ? Effect.void : still))
    })
    const stage: Stage = {
      link,
      kind,
      definition,
      connect: Effect.map(link.connect, (connection) => {
        connections.push(connection)
        return connection
      }),
      call: (connection, how) => callOver(connection, kind, how),
      reached: Deferred.await(reached),
      blocked: stock ? Effect.andThen(Deferred.await(reached), turns(50)) : still,
      leaving: () => {
        log.push(row.name)
        left = moment()
      },
      open,
      stop: Effect.map(Effect.forkIn(link.stop, scope, { startImmediately: true }), (fiber) => {
        stopping = fiberEnd(fiber)
      }),
      log: (what) => {
        log.push(what)
      }
    }
    const calling: Calling | undefined = yield* event(
      row.leave(stage),
      "what the client waits for before it leaves"
    )

    // ── what the handler saw ─────────────────────────────────────────────────────────────────────────────────

    let handler = "does not start"
    let knew: Moment | undefined
    const sees = (): string => words(stockEvents.filter((it) => stockSaw.has(it)))
    const pinned = words(driver.stock(row.name, kind))
    if (ending === "never") {
      yield* turns(settled)
      check(seen.length === 0 && !Deferred.isDoneUnsafe(reached), "a handler started")
    } else if (stock) {
      if (ending !== "completes") {
        yield* until(() => sees() === pinned, `"${pinned}" at a stock handler`)
        yield* turns(settled)
        handler = `sees ${sees()}`
      }
      yield* open
      yield* event(Deferred.await(ended), "the end of a stock handler")
    } else {
      if (fate._tag === "leaves") {
        yield* event(Deferred.await(told), "the news that the client has gone")
        const first = seen[0]?.told[0]
        knew = first
        check(first?.reason === gone, `the handler was told of ${first?.reason}, not of ${gone}`)
        if (left !== undefined && first !== undefined) {
          check(first.at >= left.at, "the handler was told before the client left")
          const took = first.turn - left.turn
          if (row.within !== undefined)
            check(took <= row.within, `the server knew after ${took} turns, not within ${row.within}`)
        }
      }
      if (ending === "interrupted" || ending === "graced") {
        yield* event(Deferred.await(ended), "the interrupt of the handler")
        const end = seen[0]?.ended
        if (end !== undefined) {
          const reasons = fate._tag === "stopped" ? fate.reasons : [gone]
          check(
            Exit.isFailure(end.exit) && Cause.hasInterruptsOnly(end.exit.cause),
            `the handler was not interrupted but ended with ${end.exit._tag}`
          )
          check(
            reasons.includes(end.reason),
            `the handler was interrupted for ${end.reason}, not for ${reasons}`
          )
          if (ending === "interrupted" && knew !== undefined)
            check(
              end.turn - knew.turn <= atOnce,
              `the handler was interrupted ${end.turn - knew.turn} turns after the server knew, not within ${atOnce}`
            )
          if (ending === "graced" && knew !== undefined)
            check(outlasted(end, knew), "the handler ended before the grace did")
          const guarded = seen[0]?.guarded ?? []
          check(
            guarded.length === 1 && reasons.includes(guarded[0] ?? ""),
            `its guard ran for "${guarded.join()}", not for ${reasons}`
          )
        }
        yield* open
      } else {
        if (ending === "runsOn") {
          yield* turns(settled)
          check(seen[0]?.ended === undefined, "the handler ended when its client had left")
        }
        if (ending === "completes" && takesStream(kind))
          yield* until(() => seen[0]?.requests === "ended", "the end of the requests")
        yield* open
        yield* event(Deferred.await(ended), "the end of the handler")
        const end = seen[0]?.ended
        check(end !== undefined && Exit.isSuccess(end.exit), "the handler did not run to its end")
        check(seen[0]?.guarded.length === 0, `its guard ran for "${seen[0]?.guarded.join()}"`)
      }
    }

    if (!stock) handler = wordsOf(seen[0], knew, ending, fate._tag === "stopped" ? fate.reasons : [gone])

    // ── what the client got ──────────────────────────────────────────────────────────────────────────────────

    const status =
      calling === undefined ? undefined : yield* event(calling.status, "the status of the client")
    const client = status === undefined ? "nothing" : (grpc.status[status.code] ?? `${status.code}`)
    const details = status?.details ?? ""
    check(
      client === (row.client ?? "nothing"),
      `the client got ${client} (${details}), not ${row.client ?? "nothing"}`
    )
    const wantedDetails = driver.details(row.name, column)
    if (wantedDetails !== undefined)
      check(details === wantedDetails, `the client was told "${details}", not "${wantedDetails}"`)

    // ── what is left ─────────────────────────────────────────────────────────────────────────────────────────

    yield* until(() => Effect.map(link.inFlight, (count) => count === 0), "the end of what is in flight")
    yield* turns(settled)
    yield* event(stopping, "the end of the stop")
    const [sighting] = seen
    check(seen.length <= 1, `${seen.length} handlers ran for one call`)
    if (sighting !== undefined) {
      const leaves = fate._tag === "leaves"
      const maybe = fate._tag === "stopped" && fate.reasons.includes(gone)
      if (!maybe) {
        const wanted = leaves ? gone : ""
        check(
          sighting.onGone.join() === wanted,
          `onPeerGone ran for "${sighting.onGone.join()}", not for "${wanted}"`
        )
        check(
          sighting.told.length === (leaves ? 1 : 0),
          `the handler was told of "${sighting.told.map(({ reason }) => reason).join()}"`
        )
      }
      if (fate._tag === "completes") {
        yield* until(() => sighting.completed, "the news that the call is completed")
        if (takesStream(kind))
          check(sighting.requests === "ended", `the requests ${sighting.requests}, not ended`)
      } else {
        check(sighting.requests !== "ended", "requests that were cut off ended as if they were complete")
        if (leaves) check(!sighting.completed, "a call whose client left was completed")
      }
      if (sighting.raw !== undefined) {
        const more = listenersOf(sighting.raw) - sighting.listeners
        check(more <= 0, `${more} listeners are left on the call`)
      }
    }
    if (!stock && link.cancellations !== undefined) {
      const reasons = link.cancellations()
      const wanted = fate._tag === "stopped" ? fate.reasons : fate._tag === "leaves" ? [gone] : []
      check(
        wanted.length === 0
          ? reasons.length === 0
          : reasons.length === 1 && wanted.includes(reasons[0] ?? ""),
        `the server counted a cancellation for "${reasons.join()}", not for "${wanted.join()}"`
      )
    }
    if (stock && ending === "completes") {
      yield* until(() => sees() === pinned, `"${pinned}" at a stock handler`)
      yield* turns(settled)
      handler = `ends, sees ${sees()}`
    }
    if (stock && ending !== "never")
      check(
        handler.endsWith(`sees ${pinned}`),
        `a stock handler ${handler}; pinned is that it sees ${pinned}`
      )
    closeAll(connections)
    if (calling === undefined) {
      // The process is at its end with the scope of the cell; its connection belongs to a process that is dead or frozen.
      yield* until(() => link.connections() === 0, "the end of the connection of a dead client")
    } else {
      yield* event(link.calm, "the end of the connections")
      check(link.connections() === 0, `${link.connections()} connections are open`)
    }
    counter.interruptUnsafe()
    const turnsTaken = knew === undefined || left === undefined ? undefined : knew.turn - left.turn
    const took = knew === undefined || left === undefined ? undefined : knew.at - left.at
    return { departure: row.name, kind, column, handler, client, details, turns: turnsTaken, millis: took }
  })

const note = (list: Array<string>, what: string): Effect.Effect<void> =>
  Effect.sync(() => {
    list.push(what)
  })

const fiberEnd = (fiber: {
  readonly addObserver: (observer: () => void) => () => void
}): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const forget = fiber.addObserver(() => resume(Effect.void))
    return Effect.sync(forget)
  })

const closeAll = (connections: Array<GrpcConnection>): void => {
  for (const connection of connections.splice(0)) connection.close()
}

/** The cell, and a look at what is left after it. */
const run = <E>(
  name: string,
  driver: GrpcMatrixDriver<E>,
  row: Row,
  column: GrpcColumn,
  kind: GrpcKind,
  patience: Duration.Duration
): Effect.Effect<GrpcOutcome, NotConformant> =>
  Effect.gen(function* () {
    const problems: Array<string> = []
    const log: Array<string> = []
    const before = resources()
    const tree = yield* driver.left
    let alive = 0
    const cell = Effect.scoped(oneCell(driver, row, column, kind, patience, problems, log))
    const exit = yield* Effect.exit(
      Effect.provideService(cell, Metric.FiberRuntimeMetrics, {
        recordFiberStart: () => {
          alive++
        },
        recordFiberEnd: () => {
          alive--
        }
      })
    )
    if (Exit.isFailure(exit)) problems.push(`the cell failed: ${Cause.pretty(exit.cause)}`)
    const end = (yield* monotonic) + Duration.toMillis(patience)
    const wrong: Effect.Effect<ReadonlyArray<string>> = Effect.gen(function* () {
      const found: Array<string> = []
      if (alive > 0) found.push(`${alive} fiber${alive === 1 ? " is" : "s are"} left`)
      for (const [what, count] of resources()) {
        const more = count - (before.get(what) ?? 0)
        if (more > 0) found.push(`${more} more ${what} than before`)
      }
      const known = [...tree]
      const still = (yield* driver.left).filter((it) => {
        const at = known.indexOf(it)
        if (at >= 0) known.splice(at, 1)
        return at < 0
      })
      if (still.length > 0) found.push(`still in the tree: ${still.join(", ")}`)
      if (found.length === 0 || (yield* monotonic) > end) return found
      yield* Effect.yieldNow
      return yield* wrong
    })
    problems.push(...(yield* wrong))
    if (Exit.isFailure(exit) || problems.length > 0) return yield* new NotConformant({ name, problems, log })
    return exit.value
  })

export const cells = <E>(driver: GrpcMatrixDriver<E>, patience: Duration.Input): ReadonlyArray<GrpcCell> =>
  rows.flatMap((row) =>
    row.kinds.flatMap((kind) =>
      columns
        .filter((column) => row.without?.includes(column) !== true)
        .map((column): GrpcCell => {
          const name = `${driver.name}, ${kind}, ${column}: ${row.name}`
          const within = Duration.fromInputUnsafe(patience)
          return {
            name,
            departure: row.name,
            kind,
            column,
            run: run(name, driver, row, column, kind, within)
          }
        })
    )
  )
