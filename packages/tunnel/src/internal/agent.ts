/**
 * What keeps an agent connected.
 *
 * **Invariants**
 * 1. A slot is a loop that owns at most one tunnel which takes calls; a tunnel that drains is handed to a task of its own.
 * 2. The loops run in one task scope and the tunnels in another, so that stopping the first opens nothing more while the
 *    calls in the second run to their end.
 * 3. Between two attempts of a slot lies a wait, except after a drain of a tunnel that had lasted.
 * 4. The agent's state follows from its slots' and is told after each change, once.
 */
import { CancelReason } from "@curfew/reason"
import { Instant, TaskScope } from "@curfew/scope"
import { countUnsafe, millisUnsafe } from "@curfew/scope/Argument"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Agent, AgentEvent, AgentFailure, AgentOptions, AgentState } from "../Agent.ts"
import type { Services } from "../Services.ts"
import type { Endpoint } from "../Tunnel.ts"
import type { TunnelHandle } from "../TunnelChannel.ts"
import { type TunnelOpenError, TunnelsNotReady } from "../TunnelError.ts"
import type { TunnelKind } from "../TunnelEvent.ts"
import { Admission } from "./admission.ts"
import { best, isPermanent, tooManyPings } from "./agentState.ts"
import * as Backoff from "./backoff.ts"
import { checkEndpoint, type Dialling, runReverse } from "./dialling.ts"
import { millisOfKeepalive } from "./keepalive.ts"
import { checkLimits } from "./limits.ts"
import { notReadyAfter } from "./waiting.ts"

/** Runs one tunnel until it ends. */
export type Life = (
  options: AgentOptions & Dialling,
  ready: (handle: TunnelHandle) => Effect.Effect<void>
) => Effect.Effect<void, TunnelOpenError, Scope.Scope>

const stopping: CancelReason = /* @__PURE__ */ CancelReason.Shutdown({ phase: "drain" })
const forced: CancelReason = /* @__PURE__ */ CancelReason.Shutdown({ phase: "force" })

export const make = (
  kind: TunnelKind,
  options: AgentOptions,
  life: Life,
  onStop: () => void
): Effect.Effect<Agent, never, Scope.Scope> =>
  Effect.gen(function* () {
    yield* checkLimits(options)
    const plan = Backoff.planOf(options.backoff)
    const count = countUnsafe("the tunnels of an agent", options.tunnels ?? 1, 1)
    const drain = Duration.millis(millisUnsafe("the drain of an agent", options.drain ?? "10 seconds"))
    const retire = Duration.millis(millisUnsafe("the retire of an agent", options.retire ?? "10 minutes"))
    const name = `${kind} agent`

    const told = yield* PubSub.sliding<AgentState>({ capacity: 1, replay: 1 })
    const tunnels = yield* TaskScope.make({ name: `${name} tunnels` })
    const loops = yield* TaskScope.make({ name })
    const note = yield* TaskScope.makeRuntime(tunnels)
    const open = new Set<TunnelHandle>()
    const states: Array<AgentState> = Array.from({ length: count }, () => ({
      _tag: "Connecting",
      attempt: 1
    }))
    const over = Deferred.makeUnsafe<AgentFailure | undefined>()
    const watchers = new Set<() => void>()
    let state = best(states)
    PubSub.publishUnsafe(told, state)

    const tell = (event: AgentEvent): void => {
      try {
        options.onEvent?.(event)
      } catch (error) {
        note(Effect.die(error), { name: "onEvent callback of an agent" })
      }
    }

    const move = (slot: number, next: AgentState): void => {
      states[slot] = next
      state = best(states)
      PubSub.publishUnsafe(told, state)
      tell({ _tag: "StateChanged", slot, state: next })
      for (const watcher of [...watchers]) watcher()
      if (state._tag === "Stopped") {
        Deferred.doneUnsafe(over, Effect.succeed(state.failure))
      }
    }

    /** Opens a tunnel as a task of its own; it goes on after this has given its handle. */
    const opened = (own: AgentOptions & Dialling) =>
      Effect.map(
        tunnels.start(
          (ready: (handle: TunnelHandle) => Effect.Effect<void>) => Effect.scoped(life(own, ready)),
          { name: `${kind} tunnel` }
        ),
        ([handle]) => handle
      )

    /** Lets the calls of a tunnel run to their end, and then closes it. */
    const retired = (handle: TunnelHandle) =>
      Effect.raceFirst(
        handle.closed,
        Effect.andThen(handle.drain(retire), handle.close(CancelReason.Superseded()))
      )

    const slotLife = (slot: number): Effect.Effect<void> =>
      Effect.gen(function* () {
        const backoff = yield* Backoff.make(plan)
        let attempt = 0
        let keepalive = options.keepalive ?? {}
        const wait = (failure: AgentFailure, delay: Duration.Duration) =>
          Effect.gen(function* () {
            const until = (yield* Clock.currentTimeMillis) + Duration.toMillis(delay)
            move(slot, { _tag: "Waiting", attempt, until, delay, failure })
            yield* Effect.sleep(delay)
          })
        while (true) {
          attempt++
          if (states[slot]?._tag !== "Draining") move(slot, { _tag: "Connecting", attempt })
          const goaway = Deferred.makeUnsafe<void>()
          const onGoaway = () => Deferred.doneUnsafe(goaway, Effect.void)
          const result = yield* Effect.result(opened({ ...options, keepalive, onGoaway }))
          if (Result.isFailure(result)) {
            const error = result.failure
            // The agent is stopping: somebody else moves the slot.
            if (error._tag !== "TunnelOpenError") return
            const failure: AgentFailure = { _tag: "NotOpened", error }
            if (isPermanent(error.code)) {
              tell({ _tag: "Refused", slot, error })
              if (options.onRefused === "stop") return move(slot, { _tag: "Stopped", failure })
              yield* wait(failure, yield* backoff.far)
            } else yield* wait(failure, yield* backoff.next)
            continue
          }
          const handle = result.success
          const since = yield* Instant.now
          open.add(handle)
          move(slot, { _tag: "Ready", tunnels: 1 })
          tell({ _tag: "Opened", slot, tunnel: handle })
          const followed = Effect.gen(function* () {
            const end = yield* handle.closed
            open.delete(handle)
            const lasted = Duration.millis((yield* Instant.now) - since)
            tell({ _tag: "Closed", slot, end, lasted })
          })
          note(followed, { name: `${kind} tunnel's end` })
          const leaving = Effect.raceFirst(handle.awaitDraining, Deferred.await(goaway))
          let end = yield* Effect.raceFirst(handle.closed, Effect.as(leaving, undefined))
          const lasted = (yield* Instant.now) - since
          const healthy = lasted >= plan.lasting
          if (healthy) {
            yield* backoff.reset
            attempt = 0
          }
          if (end === undefined && !(yield* handle.draining)) {
            // A connection that is lost looks like a GOAWAY at first; and many agents may have got the same one.
            const closed = Effect.timeoutOption(handle.closed, yield* backoff.pause)
            end = Option.getOrUndefined(yield* closed)
          }
          if (end !== undefined) {
            if (tooManyPings(end)) keepalive = millisOfKeepalive(keepalive, 2)
            yield* wait({ _tag: "Ended", end }, yield* backoff.next)
            continue
          }
          move(slot, { _tag: "Draining", by: "peer" })
          tell({ _tag: "PeerDrains", slot, tunnel: handle })
          const connecting = Effect.sync(() => {
            // Nothing drains any more, and the next tunnel is not open yet.
            const { by } = states[slot] as { readonly by?: string }
            if (by === "peer") move(slot, { _tag: "Connecting", attempt: attempt + 1 })
          })
          note(Effect.andThen(retired(handle), connecting), { name: `${kind} tunnel that drains` })
          // A peer that drains whatever is opened must not be asked without a pause.
          if (!healthy) yield* Effect.flatMap(backoff.next, Effect.sleep)
        }
      })

    for (let slot = 0; slot < count; slot++) {
      yield* Effect.orDie(loops.spawn(slotLife(slot), { name: `${name} ${slot}` }))
    }

    let stop: Deferred.Deferred<boolean> | undefined
    const stopOnce = (limit: Duration.Input): Effect.Effect<boolean> =>
      Effect.suspend(() => {
        if (stop !== undefined) return Deferred.await(stop)
        const mine = Deferred.makeUnsafe<boolean>()
        stop = mine
        const close = (reason: CancelReason) =>
          Effect.andThen(
            Effect.forEach([...open], (handle) => handle.close(reason), { concurrency: "unbounded" }),
            tunnels.cancel(reason)
          )
        const stopped = Effect.sync(() => {
          for (let slot = 0; slot < count; slot++) {
            if (states[slot]?._tag !== "Stopped") move(slot, { _tag: "Stopped", failure: undefined })
          }
        })
        return Effect.gen(function* () {
          onStop()
          for (let slot = 0; slot < count; slot++) {
            if (states[slot]?._tag !== "Stopped") move(slot, { _tag: "Draining", by: "here" })
          }
          yield* loops.cancel(stopping)
          const each = yield* Effect.forEach([...open], (handle) => handle.drain(limit), {
            concurrency: "unbounded"
          })
          return each.every(Boolean)
        }).pipe(
          Effect.onExit((exit) => {
            const reason = exit._tag === "Success" && exit.value ? stopping : forced
            return Effect.andThen(close(reason), Effect.andThen(stopped, Deferred.done(mine, exit)))
          })
        )
      })
    yield* Effect.addFinalizer(() => stopOnce(drain))

    const ready = (): boolean => state._tag === "Ready"
    const awaitSettled = Effect.callback<boolean>((resume) => {
      const look = (): boolean => {
        if (!ready() && state._tag !== "Stopped") return false
        watchers.delete(look)
        resume(Effect.succeed(ready()))
        return true
      }
      if (look()) return
      watchers.add(look)
      return Effect.sync(() => watchers.delete(look))
    })
    const what = `The ${name}`

    return {
      kind,
      state: Effect.sync(() => state),
      slots: Effect.sync(() => [...states]),
      // Who comes after the end gets the last state too.
      changes: Stream.takeUntil(Stream.fromPubSub(told), (it) => it._tag === "Stopped"),
      ready: Effect.sync(ready),
      awaitReady: (limit) =>
        notReadyAfter(
          limit,
          what,
          Effect.flatMap(awaitSettled, (settled) =>
            settled ? Effect.void : Effect.fail(new TunnelsNotReady({ what }))
          )
        ),
      tunnels: Effect.sync(() => [...open]),
      stop: (limit = Duration.infinity) =>
        stopOnce(Duration.millis(millisUnsafe("the limit of stop", limit))),
      stopped: Deferred.await(over)
    }
  })

export const serve = (
  to: Endpoint,
  services: Services,
  options: AgentOptions
): Effect.Effect<Agent, never, Scope.Scope> =>
  Effect.andThen(
    checkEndpoint(to),
    make(
      "reverse",
      options,
      (own, ready) => runReverse(to, services, new Admission(), own, ready),
      () => undefined
    )
  )
