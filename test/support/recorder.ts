/** What tests watch with: an event log, a counting receiver, and a count of live fibers. */
import { OnUnhandled, type Unhandled } from "@curfew/scope"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"

export interface Recorder {
  readonly events: ReadonlyArray<string>
  readonly add: (event: string) => Effect.Effect<void>
  /** Work that never ends by itself and records that it was stopped. */
  readonly never: (name: string) => Effect.Effect<never>
}

export const recorder = (): Recorder => {
  const events: Array<string> = []
  const add = (event: string) =>
    Effect.sync(() => {
      events.push(event)
    })
  return { events, add, never: (name) => Effect.onExit(Effect.never, () => add(name)) }
}

export interface Receiver {
  readonly seen: ReadonlyArray<Unhandled>
  readonly receive: (unhandled: Unhandled) => Effect.Effect<void>
  /** Runs an effect with this receiver in place of the one that logs. */
  readonly around: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const receiver = (): Receiver => {
  const seen: Array<Unhandled> = []
  const receive = (unhandled: Unhandled) =>
    Effect.sync(() => {
      seen.push(unhandled)
    })
  return { seen, receive, around: (effect) => Effect.provideService(effect, OnUnhandled, receive) }
}

/** Counts the fibers that start and end below an effect. */
export const fiberCount = () => {
  const count = { live: 0, started: 0 }
  const service: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => {
      count.live++
      count.started++
    },
    recordFiberEnd: () => {
      count.live--
    }
  }
  const around = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.provideService(effect, Metric.FiberRuntimeMetrics, service)
  return { count, around }
}

/** A fiber that has started and come to its first suspension. */
export const started = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<Fiber.Fiber<A, E>, never, R> => Effect.forkChild(effect, { startImmediately: true })

/** Masked work that runs until it is let go: what no cancel ends. */
export const held = <A = void, E = never>() => {
  const gate = Deferred.makeUnsafe<A, E>()
  return { gate, work: Effect.uninterruptible(Deferred.await(gate)) }
}

/** The exit of an effect in a fiber of its own, so that what interrupts it leaves the test alone. */
export const exitOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(started(effect), Fiber.await)
