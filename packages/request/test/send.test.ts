import { CancelReason } from "@curfew/reason"
import { foreignInterrupt, PeerSignal, send, statusOf, statusOfAnswer } from "@curfew/request"
import { CancelScope } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as References from "effect/References"
import { sweepAll } from "../../../test/support/sweep.ts"
import { left, serve } from "./support/edge.ts"

const gone = { _tag: "PeerGone", reason: left } as const

/** What is logged, at which level. */
const logging = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
  const log: Array<string> = []
  const logger = Logger.make<unknown, void>(({ logLevel }) => {
    log.push(logLevel)
  })
  return {
    log,
    effect: effect.pipe(
      Effect.provide(Logger.layer([logger])),
      Effect.provideService(References.MinimumLogLevel, "Debug")
    )
  }
}

describe("L41: a write", () => {
  it.effect("L41: is what it is while the peer is there", () =>
    Effect.gen(function* () {
      const peer = PeerSignal.makeUnsafe()
      expect(yield* send(Effect.succeed(1), { peer })).toEqual({ _tag: "Sent", value: 1 })
      expect(yield* Effect.exit(send(Effect.fail("EPIPE"), { peer }))).toEqual(Exit.fail("EPIPE"))
      expect(yield* Effect.exit(send(Effect.die("bug"), { peer }))).toEqual(Exit.die("bug"))
      expect(yield* send(Effect.succeed(1))).toEqual({ _tag: "Sent", value: 1 })
    })
  )

  it.effect("L41: to a peer that has gone is not begun: an outcome, not an exception", () =>
    Effect.gen(function* () {
      const peer = PeerSignal.makeUnsafe()
      peer.goneUnsafe(left)
      let begun = false
      expect(
        yield* send(
          Effect.sync(() => (begun = true)),
          { peer }
        )
      ).toEqual(gone)
      expect(begun).toBe(false)
    })
  )

  it.effect(
    "L41: that waits when the peer leaves ends with the outcome, as a transport never calls back",
    () =>
      Effect.gen(function* () {
        const peer = PeerSignal.makeUnsafe()
        const fiber = yield* Effect.forkChild(send(Effect.never, { peer }), { startImmediately: true })
        peer.goneUnsafe(left)
        expect(fiber.pollUnsafe()).toEqual(Exit.succeed(gone))
      })
  )

  it.effect("L41: that fails because the peer left is the outcome too; a defect stays one", () =>
    Effect.gen(function* () {
      const ending = (write: Effect.Effect<never, string>) =>
        Effect.gen(function* () {
          const peer = PeerSignal.makeUnsafe()
          const release = yield* Deferred.make<void>()
          const fiber = yield* Effect.forkChild(
            send(Effect.andThen(Effect.uninterruptible(Deferred.await(release)), write), { peer }),
            { startImmediately: true }
          )
          peer.goneUnsafe(left)
          yield* Deferred.succeed(release, undefined)
          return yield* Fiber.await(fiber)
        })
      expect(yield* ending(Effect.fail("ERR_STREAM_DESTROYED"))).toEqual(Exit.succeed(gone))
      const peer = PeerSignal.makeUnsafe()
      const dying = Effect.andThen(peer.gone(left), Effect.die("bug"))
      expect(Exit.hasDies(yield* Effect.exit(send(Effect.uninterruptible(dying), { peer })))).toBe(true)
    })
  )

  it.effect("L41: is logged at debug, once a call", () =>
    Effect.gen(function* () {
      const peer = PeerSignal.makeUnsafe()
      const writes = Effect.gen(function* () {
        yield* send(Effect.void, { peer })
        yield* peer.gone(left)
        yield* send(Effect.void, { peer })
        yield* send(Effect.void, { peer })
      })
      const { effect, log } = logging(writes)
      yield* effect
      expect(log).toEqual(["Debug"])
    })
  )

  it.effect("L41: finds its peer by itself inside a handler", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const outcomes: Array<string> = []
      const handler = Effect.gen(function* () {
        outcomes.push((yield* send(Effect.void))._tag)
        yield* Deferred.await(release)
        outcomes.push((yield* send(Effect.void))._tag)
      })
      const { answer, peer } = yield* serve(handler)
      peer.goneUnsafe(left)
      yield* Deferred.succeed(release, undefined)
      yield* answer
      expect(outcomes).toEqual(["Sent", "PeerGone"])
    })
  )

  it.effect("L41: that is cancelled from outside is interrupted, not told that the peer has gone", () =>
    Effect.gen(function* () {
      const outcome = yield* CancelScope.run((scope) =>
        Effect.andThen(
          Effect.forkChild(scope.cancel(CancelReason.Superseded())),
          send(Effect.never, { peer: PeerSignal.makeUnsafe() })
        )
      )
      expect(outcome).toEqual({ _tag: "Cancelled", reason: CancelReason.Superseded() })
    })
  )

  it("L41: leaves nothing behind at whichever step it is cancelled, once or twice", async () => {
    const steps = await sweepAll(() => ({
      program: send(Effect.as(Effect.sleep("1 millis"), 1), { peer: PeerSignal.makeUnsafe() })
    }))
    expect(Math.min(...steps)).toBeGreaterThan(5)
  })
})

describe("L48: what answers", () => {
  const table: ReadonlyArray<readonly [CancelReason, number, number]> = [
    [left, 499, 1],
    [CancelReason.Deadline({ at: 0, origin: "local" }), 504, 4],
    [CancelReason.Deadline({ at: 0, origin: "remote" }), 504, 4],
    [CancelReason.Shutdown({ phase: "drain" }), 503, 14],
    [CancelReason.Shutdown({ phase: "force" }), 503, 14],
    [CancelReason.LimitExceeded({ limit: "rate" }), 429, 8],
    [CancelReason.Superseded(), 409, 10],
    [CancelReason.Requested({ message: "by an operator" }), 503, 1],
    [CancelReason.SiblingFailed({ cause: Cause.fail("x") }), 500, 13],
    [CancelReason.Unobserved({ lingered: Number.NaN as never }), 500, 13],
    [CancelReason.Unknown(), 500, 13]
  ]

  for (const [reason, http, grpc] of table) {
    it(`L48: ${reason._tag}${"phase" in reason ? ` (${reason.phase})` : ""} is ${http} and gRPC ${grpc}`, () => {
      expect(statusOf(reason)).toEqual({ http, grpc })
      expect(statusOfAnswer({ _tag: "Cancelled", reason })).toEqual({ http, grpc })
      expect(statusOfAnswer({ _tag: "Dropped", reason, exit: Option.none() })).toEqual({ http, grpc })
    })
  }

  it("L48: a limit of the server's own is 503", () => {
    const limit = (name: string) => (name === "rate" ? 429 : 503)
    expect(statusOf(CancelReason.LimitExceeded({ limit: "memory" }), { limit })).toEqual({
      http: 503,
      grpc: 8
    })
    expect(statusOf(CancelReason.LimitExceeded({ limit: "rate" }), { limit })).toEqual({ http: 429, grpc: 8 })
  })

  it("L48: a foreign interrupt is 500 and INTERNAL; what the program answers itself is not mapped", () => {
    expect(foreignInterrupt).toEqual({ http: 500, grpc: 13 })
    expect(statusOfAnswer({ _tag: "Failure", cause: Cause.interrupt(1) })).toEqual(foreignInterrupt)
    expect(statusOfAnswer({ _tag: "Failure", cause: Cause.fail("x") })).toBeUndefined()
    expect(statusOfAnswer({ _tag: "Failure", cause: Cause.die("x") })).toBeUndefined()
    expect(statusOfAnswer({ _tag: "Value", value: 1 })).toBeUndefined()
  })
})
