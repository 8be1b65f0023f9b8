import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { Agent, type AgentEvent, type AgentState, Services, TunnelService } from "../src/index.ts"
import * as Backoff from "../src/internal/backoff.ts"
import { listen } from "./support/network.ts"

const nobody = { address: "127.0.0.1:1", credentials: grpc.credentials.createInsecure() }

type Waiting = Extract<AgentState, { readonly _tag: "Waiting" }>

/** Waits until the agent waits after its given attempt. */
const waitingAfter = (agent: Agent.Agent, attempt: number): Effect.Effect<Waiting> =>
  agent.changes.pipe(
    Stream.filter((state) => state._tag === "Waiting" && state.attempt === attempt),
    Stream.runHead,
    Effect.map((state) => Option.getOrThrow(state) as Waiting)
  )

describe("the waits of an agent", () => {
  it.effect("grow to the cap, and lie between a fifth of the first bound and their own", () =>
    Effect.gen(function* () {
      const plan = Backoff.planOf({ initial: "1 second", factor: 2, cap: "10 seconds" })
      for (let round = 0; round < 200; round++) {
        const backoff = yield* Backoff.make(plan)
        for (const bound of [1000, 2000, 4000, 8000, 10_000, 10_000]) {
          const wait = Duration.toMillis(yield* backoff.next)
          expect(wait).toBeGreaterThanOrEqual(200)
          expect(wait).toBeLessThanOrEqual(bound)
        }
        yield* backoff.reset
        expect(Duration.toMillis(yield* backoff.next)).toBeLessThanOrEqual(1000)
        const far = Duration.toMillis(yield* backoff.far)
        expect(far).toBeGreaterThanOrEqual(5000)
        expect(far).toBeLessThanOrEqual(10_000)
      }
    })
  )

  it.effect("are spread over all of that, so that agents do not come back together", () =>
    Effect.gen(function* () {
      const plan = Backoff.planOf({ initial: "1 second", cap: "1 second" })
      const { next } = yield* Backoff.make(plan)
      const waits = yield* Effect.all(Array.from({ length: 2000 }, () => Effect.map(next, Duration.toMillis)))
      const quarters = [0, 0, 0, 0]
      for (const wait of waits) {
        const quarter = Math.min(3, Math.floor((wait - 200) / 200))
        quarters[quarter] = (quarters[quarter] ?? 0) + 1
      }
      for (const count of quarters) expect(count).toBeGreaterThan(350)
    })
  )

  it.effect.each([
    ["initial", { initial: Number.NaN }],
    ["cap", { cap: Number.NaN }],
    ["lasting", { lasting: Number.NaN }],
    ["factor", { factor: 0.5 }]
  ] as const)("are refused where %s means nothing", ([word, backoff]) =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(Effect.scoped(Agent.serve(nobody, Services.empty, { backoff })))
      expect(Exit.isFailure(exit) && String(exit.cause)).toContain("IllegalArgument")
      expect(String(exit)).toContain(word)
    })
  )

  it.effect("lie between any two attempts: none comes before the clock has moved", () =>
    Effect.gen(function* () {
      const events: Array<AgentEvent> = []
      const agent = yield* Agent.serve(nobody, Services.empty, {
        backoff: { initial: "1 second", cap: "1 minute" },
        onEvent: (event) => events.push(event)
      })
      for (let attempt = 1; attempt <= 6; attempt++) {
        const { delay, failure } = yield* waitingAfter(agent, attempt)
        const millis = Duration.toMillis(delay)
        expect(millis).toBeGreaterThanOrEqual(200)
        expect(millis).toBeLessThanOrEqual(1000 * 2 ** (attempt - 1))
        expect(failure._tag).toBe("NotOpened")
        yield* TestClock.adjust(Duration.millis(millis - 1))
        expect((yield* agent.state)._tag).toBe("Waiting")
        yield* TestClock.adjust(1)
      }
      const connecting = events.filter((it) => it._tag === "StateChanged" && it.state._tag === "Connecting")
      expect(connecting).toHaveLength(7)
    }).pipe(Effect.scoped)
  )

  it.effect("begin anew after a connection that lasted, and only then", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make()
      const { address, server } = yield* listen(service.addTo)
      const agent = yield* Agent.serve({ ...nobody, address }, Services.empty, {
        backoff: { initial: "1 second", cap: "1 hour", lasting: "10 seconds" }
      })
      const dropped = Effect.gen(function* () {
        const tunnel = yield* service.reverse.awaitReverse()
        yield* agent.awaitReady()
        return tunnel
      })
      // Opened and lost at once, twice: as if it had never been open.
      for (const attempt of [1, 2]) {
        const tunnel = yield* dropped
        yield* tunnel.close()
        const { delay, failure } = yield* waitingAfter(agent, attempt)
        expect(failure).toMatchObject({ _tag: "Ended", end: { _tag: "ClosedByPeer" } })
        yield* TestClock.adjust(delay)
      }
      yield* dropped
      yield* TestClock.adjust("10 seconds")
      server.forceShutdown()
      const { delay } = yield* waitingAfter(agent, 0)
      expect(Duration.toMillis(delay)).toBeLessThanOrEqual(1000)
    }).pipe(Effect.scoped)
  )

  it.effect("end when the agent is stopped", () =>
    Effect.gen(function* () {
      const agent = yield* Agent.serve(nobody, Services.empty, { backoff: { initial: "1 hour" } })
      yield* waitingAfter(agent, 1)
      expect(yield* agent.stop()).toBe(true)
      expect((yield* agent.state)._tag).toBe("Stopped")
      const told = yield* Stream.runCollect(agent.changes)
      expect([...told].map(({ _tag }) => _tag)).toEqual(["Stopped"])
    }).pipe(Effect.scoped)
  )
})
