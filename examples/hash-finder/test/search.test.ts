import { createHash } from "node:crypto"
import { CancelReason } from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"
import type { Progress } from "../src/handlers.ts"
import { inLoop } from "../src/inLoop.ts"
import { inWorkers } from "../src/inWorkers.ts"
import { batchSize, distanceBetween, type Job, problemWith, tryAll } from "../src/search.ts"

const query = (desiredName: string, idealDistance = 0, interestingDistance = idealDistance) => ({
  desiredName,
  idealDistance,
  interestingDistance
})
const endless: Job = { query: query("theneedleinthehaystack"), from: 0, count: 2 ** 40 }
const left = CancelReason.ClientGone({ transport: "grpc" })

describe("the search", () => {
  test("counts the letters in which the closest stretch differs", () => {
    expect(distanceBetween("abcdef", "cde")).toBe(0)
    expect(distanceBetween("abcdef", "cxe")).toBe(1)
    expect(distanceBetween("abcdef", "abcdef")).toBe(0)
    expect(distanceBetween("abcdef", "fed")).toBe(2)
    expect(distanceBetween("abcdef", "xyz")).toBe(3)
  })

  test("hashes each secret with SHA-256, and ends with the first ideal one", () => {
    const { candidates, ideal, tried } = tryAll({ query: query("abc", 1, 2), from: 0, count: 10_000 })
    expect(ideal).toBe(true)
    expect(candidates.at(-1)?.secret).toBe((tried - 1).toString(36))
    expect(candidates.map(({ distance }) => distance)).toEqual([...candidates.slice(1).map(() => 2), 1])
    for (const { hash, secret } of candidates) {
      expect(`${hash}=`).toBe(createHash("sha256").update(secret).digest("base64"))
    }
  })

  test("finds the same in jobs as in one", () => {
    const whole = tryAll({ query: query("hash", 0, 2), from: 0, count: 1_000 }).candidates
    const parts = [0, 400].flatMap(
      (from) => tryAll({ query: query("hash", 0, 2), from, count: from === 0 ? 400 : 600 }).candidates
    )
    expect(whole.length).toBeGreaterThan(0)
    expect(parts).toEqual(whole)
  })

  test("knows what it cannot look for", () => {
    expect(problemWith(query("a".repeat(43)))).toBeUndefined()
    expect(problemWith(query("a".repeat(44)))).toContain("1 to 43 characters")
    expect(problemWith(query(""))).toContain("1 to 43 characters")
    expect(problemWith(query("a b"))).toContain("1 to 43 characters")
    expect(problemWith(query("a", 2, 1))).toContain("at least the ideal distance")
  })
})

describe("a search in the server's own thread", () => {
  test("notices a cancel within one time slice, and does not start another batch", async () => {
    // Each look at the clock finds that a millisecond has passed; a time slice is five of them.
    let now = 0n
    const clock = (real: Clock.Clock): Clock.Clock => ({
      ...real,
      monotonicTimeNanosUnsafe: () => (now += 1_000_000n)
    })
    const controller = new AbortController()
    let tried = 0
    let sent = 0
    let heard = 0
    const progress: Progress = {
      get tried() {
        return tried
      },
      set tried(value) {
        tried = value
        if (sent > 0 || tried < 20 * batchSize) return
        sent = tried
        // As a packet of the client does, it waits for a turn of the event loop.
        setImmediate(() => {
          heard = tried
          controller.abort(left)
        })
      }
    }
    const outcome = await Effect.runPromise(
      CancelScope.run(() => inLoop(endless, progress), { signal: controller.signal }).pipe(
        Effect.updateService(Clock.Clock, clock)
      )
    )
    expect(outcome).toEqual({ _tag: "Cancelled", reason: left })
    expect(heard - sent).toBeLessThanOrEqual(5 * batchSize)
    expect(tried).toBe(heard)
  })
})

describe("a search in worker threads", () => {
  const small: Job = { query: query("ab"), from: 0, count: 1_000 }

  test("stops within one batch of its cancel, and the worker takes the next job", async () => {
    const rounds = await Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const search = yield* inWorkers(1)
          const warm: Progress = { tried: 0 }
          yield* search(small, warm)
          const rounds: Array<{ readonly cancelled: Progress; readonly next: Progress }> = []
          for (let round = 0; round < 5; round++) {
            const cancelled: Progress = { tried: 0 }
            yield* CancelScope.run((scope) =>
              Effect.raceFirst(
                search(endless, cancelled),
                Effect.andThen(Effect.yieldNow, Effect.andThen(scope.cancel(left), Effect.never))
              )
            )
            const next: Progress = { tried: 0 }
            expect(yield* search(small, next)).toMatchObject({ ideal: true, tried: 8 })
            rounds.push({ cancelled, next })
          }
          return rounds.map((round) => ({ ...round, id: warm.worker }))
        })
      )
    )
    expect(rounds).toHaveLength(5)
    for (const { cancelled, id, next } of rounds) {
      expect(cancelled.worker).toBe(id)
      expect(cancelled.pastTheFlag).toBeLessThanOrEqual(batchSize)
      expect(next).toEqual({ tried: 8, worker: id })
    }
  })

  test("ends its workers with its Scope, and replaces one that broke", async () => {
    const exits: Array<Promise<number>> = []
    const count = (worker: import("node:worker_threads").Worker): void => {
      exits.push(new Promise((resolve) => worker.once("exit", resolve)))
    }
    process.on("worker", count)
    const workers = await Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const search = yield* inWorkers(1)
          const first: Progress = { tried: 0 }
          yield* search(small, first)
          const broken = yield* Effect.exit(search({ ...small, query: undefined as never }, { tried: 0 }))
          expect(broken._tag).toBe("Failure")
          const second: Progress = { tried: 0 }
          yield* search(small, second)
          return [first.worker, second.worker]
        })
      )
    ).finally(() => process.off("worker", count))
    expect(new Set(workers).size).toBe(2)
    expect(exits).toHaveLength(2)
    await Promise.all(exits)
  })
})
