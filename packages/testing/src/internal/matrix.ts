/**
 * One case of the disconnect matrix: a departure under a policy, in a world of its own.
 *
 * Invariants
 * 1. The handler waits at a gate, so that it ends by itself only when the case lets it.
 * 2. Time is virtual and moves only when the sockets have been silent: that something lasts is seen by sleeping, that
 *    it happens by waiting for the event.
 * 3. What is wrong is collected, and what happened is logged, so that one run says all that it can.
 * 4. The world is killed at the end of the case, whichever way that comes.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import {
  type ConformanceCase,
  type Departure,
  type DisconnectCall,
  type DisconnectDriver,
  NotConformant,
  type Policy
} from "../Disconnects.ts"
import { defaults } from "./defaults.ts"
import { World } from "./world.ts"

const grace = Duration.seconds(10)
const gone = "ClientGone"
const turnsUntilClosed = 100_000

/** What one handler saw. */
interface Sighting {
  told: { readonly reason: string; readonly at: number; readonly turn: number } | undefined
  ended:
    | {
        readonly exit: Exit.Exit<string>
        readonly at: number
        readonly turn: number
        readonly reason: string
      }
    | undefined
}

interface Leaving {
  at: number
  turn: number
}

const outcomeOf = (policy: Policy, stock: "interrupted" | "runsOn" | undefined) =>
  policy === "cancel" || (policy === "stock" && stock === "interrupted")
    ? "interrupted"
    : policy === "grace"
      ? "interruptedLater"
      : "runsOn"

const oneCase = <Link, E>(
  name: string,
  driver: DisconnectDriver<Link, E>,
  departure: Departure<Link>,
  policy: Policy,
  world: World,
  problems: Array<string>,
  log: Array<string>
): Effect.Effect<void, E> =>
  Effect.gen(function* () {
    const check = (holds: boolean, problem: string): void => {
      if (!holds) problems.push(problem)
    }
    const now = Clock.currentTimeMillis
    const note = (what: string) =>
      Effect.map(now, (at) => {
        log.push(`${what} at ${at} ms`)
        return at
      })
    const listeners = yield* Effect.scope
    const gate = Deferred.makeUnsafe<void>()
    const reached = Deferred.makeUnsafe<void>()
    const noticed = Deferred.makeUnsafe<void>()
    const ended = Deferred.makeUnsafe<void>()
    const seen: Array<Sighting> = []
    const earlier = departure.earlier ?? 0
    const left: Leaving = { at: Number.NaN, turn: 0 }
    let edges = 0

    const waits = (call: DisconnectCall, sighting: Sighting): Effect.Effect<string> =>
      Effect.gen(function* () {
        if (call.peerGone !== undefined) {
          const told = Effect.gen(function* () {
            const reason = yield* call.peerGone as Effect.Effect<string>
            const at = yield* note(`told of ${reason}`)
            sighting.told = { reason, at, turn: world.turns }
            yield* Deferred.succeed(noticed, undefined)
          })
          // It outlives the handler: what is told after the answer has to be heard, too.
          yield* Effect.forkIn(told, listeners, { startImmediately: true })
        }
        if (departure.at === "streaming") yield* call.write("part")
        yield* Deferred.succeed(reached, undefined)
        if (departure.at !== "answered") yield* Deferred.await(gate)
        return "answer"
      })

    const handler = (call: DisconnectCall): Effect.Effect<string> =>
      Effect.suspend(() => {
        const sighting: Sighting = { told: undefined, ended: undefined }
        const number = seen.push(sighting)
        log.push(`handler ${number} starts`)
        if (number <= earlier) return Effect.succeed("answer")
        return Effect.onExit(waits(call, sighting), (exit) =>
          Effect.gen(function* () {
            const interrupted = Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
            const reason = interrupted && call.reason !== undefined ? yield* call.reason : "none"
            const at = yield* note(
              interrupted ? `handler ${number} interrupted for ${reason}` : `handler ${number} ends`
            )
            sighting.ended = { exit, at, turn: world.turns, reason }
            yield* Deferred.succeed(noticed, undefined)
            yield* Deferred.succeed(ended, undefined)
          })
        )
      })

    const meeting = {
      reached: Deferred.await(reached),
      leaving: Effect.map(note("the client leaves"), (at) => {
        left.at = at
        left.turn = world.turns
      })
    }
    const edgeDone = Effect.suspend(() => {
      edges++
      return Effect.asVoid(note(`the edge is done with call ${edges}`))
    })

    const link = yield* driver.serve({ policy, grace, handler, edgeDone })
    const got = yield* departure.leave(link, meeting)
    log.push(`the client got "${got}"`)
    check(got === departure.gets, `the client got "${got}" in place of "${departure.gets}"`)

    const quiet = Effect.sleep("1 millis")
    const last = (): Sighting | undefined => seen[earlier]
    if (departure.at === "beforeStart") {
      yield* quiet
      check(seen.length === 0, "a handler started for a request that was never complete")
    } else if (departure.at === "answered") {
      yield* quiet
      check(last()?.ended?.exit._tag === "Success", "the handler of an answered call did not succeed")
      check(last()?.told === undefined, "the handler of an answered call was told that its peer had gone")
    } else {
      const deaf = driver.hears?.(departure.name) === false
      const wanted = deaf ? "runsOn" : outcomeOf(policy, driver.stock)
      const asks = policy !== "stock" && !deaf
      // Only who asks, or is interrupted, can be waited for.
      if (asks || wanted === "interrupted") yield* Deferred.await(noticed)
      else yield* quiet
      const sighting = last()
      const told = sighting?.told
      const turn = told?.turn ?? sighting?.ended?.turn
      if (departure.within !== undefined && turn !== undefined) {
        const took = turn - left.turn
        check(took <= departure.within, `the server knew after ${took} turns, not within ${departure.within}`)
      }
      if (told !== undefined)
        check(told.reason === gone, `the handler was told of ${told.reason}, not of ${gone}`)
      const interruption = () => {
        const end = last()?.ended
        check(end !== undefined && Exit.isFailure(end.exit), "the handler was not interrupted")
        if (end !== undefined && asks) {
          check(end.reason === gone, `the handler was interrupted for ${end.reason}, not for ${gone}`)
        }
        return end
      }
      if (wanted === "interrupted") {
        yield* quiet
        const end = interruption()
        check(end === undefined || end.at - left.at <= 1, "the handler was interrupted late")
      } else if (wanted === "interruptedLater") {
        yield* Effect.sleep(Duration.millis(Duration.toMillis(grace) - 2))
        check(last()?.ended === undefined, "the handler ended before the grace did")
        yield* Effect.sleep("5 millis")
        interruption()
      } else {
        yield* Effect.sleep("1 hour")
        check(last()?.ended === undefined, "the handler ended when its peer had left")
        if (policy === "detach" && !deaf)
          check(edges > earlier, "the edge still waits for a detached handler")
        if (policy === "shield") check(edges === earlier, "the edge did not wait for a shielded handler")
        yield* Deferred.succeed(gate, undefined)
        yield* Deferred.await(ended)
        check(last()?.ended?.exit._tag === "Success", "the handler did not run to its end")
        if (asks) check(told !== undefined, "the handler could not learn that its peer had gone")
      }
    }
    yield* quiet
    // The end of a killed process arrives when the machine gets to it, and virtual time does not wait for that.
    let turns = 0
    world.arrived = () => driver.connections(link) === 0 || ++turns > turnsUntilClosed
    yield* quiet
    check(edges === seen.length, `the edge is done with ${edges} of ${seen.length} calls`)
    const open = driver.connections(link)
    check(open === 0, `${open} connection${open === 1 ? " is" : "s are"} open after the end`)
  }).pipe(Effect.scoped, Effect.withSpan(name))

const run = <Link, E>(
  name: string,
  driver: DisconnectDriver<Link, E>,
  departure: Departure<Link>,
  policy: Policy,
  patience: Duration.Input
): Effect.Effect<void, NotConformant> =>
  Effect.contextWith((context: Context.Context<never>) => {
    const problems: Array<string> = []
    const log: Array<string> = []
    const world = new World({
      ...defaults({}),
      context,
      live: true,
      quietTurns: 50,
      deadlockPatience: Duration.toMillis(patience)
    })
    const look = world.start(oneCase(name, driver, departure, policy, world, problems, log), "run")
    return Effect.gen(function* () {
      const before = driver.left === undefined ? [] : yield* driver.left
      const ended = yield* world.drive(() => look() !== undefined)
      const exit = look()
      if (exit === undefined)
        problems.push(`the case does not end (${ended}): what it waits for does not come`)
      else if (Exit.isFailure(exit)) problems.push(`the case failed: ${Cause.pretty(exit.cause)}`)
      else {
        yield* world.drive(() => false, { until: world.clock.now, quiet: false })
        const alive = world.fibers.alive().length
        if (alive > 0) problems.push(`${alive} fiber${alive === 1 ? " is" : "s are"} left`)
        if (driver.left !== undefined) {
          const tree = (yield* driver.left).slice(before.length)
          if (tree.length > 0) problems.push(`still in the tree: ${tree.join(", ")}`)
        }
      }
      if (problems.length > 0) return yield* new NotConformant({ name, problems, log })
    }).pipe(Effect.onExit(() => Effect.sync(() => world.kill())))
  })

export const matrix = <Link, E>(
  driver: DisconnectDriver<Link, E>,
  departures: Iterable<Departure<Link>>,
  patience: Duration.Input
): ReadonlyArray<ConformanceCase> =>
  [...departures].flatMap((departure) =>
    driver.policies.map((policy) => {
      const name = `${driver.name}, ${policy}: the client leaves ${departure.name}`
      return { name, run: run(name, driver, departure, policy, patience) }
    })
  )
