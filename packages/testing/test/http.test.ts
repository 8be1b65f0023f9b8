import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import { describe, expect, test } from "vitest"
import { type Exchange, type HttpSweepOptions, nodeHttp, type Serve, sweepHttp } from "../src/http.ts"
import { expectSwept, formatSweep, Probe, type SweepReport } from "../src/index.ts"

const swept = (serve: Serve, options?: HttpSweepOptions): Promise<SweepReport> =>
  Effect.runPromise(sweepHttp(serve, options))

const kinds = (report: SweepReport) => [
  ...new Set(report.findings.map(({ kind, probe }) => (probe === undefined ? kind : `${kind} ${probe}`)))
]

/** A handler that is made once per server, with its probes. */
const serving =
  (make: Effect.Effect<(exchange: Exchange) => Effect.Effect<unknown, unknown>>): Serve =>
  (watch) =>
    Effect.flatMap(make, (handle) => nodeHttp(handle)(watch))

const pause = Effect.andThen(Effect.yieldNow, Effect.sleep("1 second"))

const sound = serving(
  Effect.gen(function* () {
    const connection = yield* Probe.resource("connection to the database")
    const semaphore = yield* Semaphore.make(2)
    yield* Probe.permits("semaphore", semaphore)
    return ({ response }) =>
      semaphore.withPermits(1)(
        connection.around(
          Effect.andThen(
            pause,
            Effect.sync(() => response.end("found"))
          )
        )
      )
  })
)

describe("a sweep over a real connection", { timeout: 60_000 }, () => {
  test("passes a sound handler, in every mode and state, and is the same again", async () => {
    const options = { modes: ["reset", "abort", "halfClose", "response"] } as const
    const report = await swept(sound, options)
    expect(formatSweep(report)).toContain("nothing broken")
    expect(report).toMatchObject({ ok: true, complete: true })
    expect(report.steps).toBeGreaterThan(10)
    // In four modes and two states, each step and the run that is not cancelled any more; once more to measure.
    expect(report.runs).toBeGreaterThan(report.steps * 6)
    expect(await swept(sound, options)).toEqual(report)
  })

  test("lets the server hear of it at that very step", async () => {
    const heard: Array<number> = []
    let steps = 0
    const serve = serving(
      Effect.succeed(({ onGone, response }) =>
        Effect.gen(function* () {
          steps = 0
          onGone(() => heard.push(steps))
          for (let i = 0; i < 5; i++) {
            yield* Effect.yieldNow
            steps++
          }
          response.end("done")
        })
      )
    )
    const report = await swept(serve, { modes: ["reset"], states: ["kept"] })
    expect(report.ok).toBe(true)
    expect([...heard]).toEqual([...heard].sort((a, b) => a - b))
    expect(new Set(heard)).toEqual(new Set([0, 1, 2, 3, 4]))
  })

  test("knows its name", async () => {
    await swept(sound, { name: "GET /found", modes: ["reset"], states: ["kept"] })
    expect(expectSwept([{ name: "GET /found", cancellable: true }])).toBeUndefined()
  })

  test("sends the request that it is told to", async () => {
    const seen = new Set<string>()
    const serve = serving(
      Effect.succeed(({ request, response }) =>
        Effect.callback<void>((resume) => {
          const body: Array<Buffer> = []
          request.on("data", (chunk: Buffer) => body.push(chunk))
          request.on("end", () => {
            seen.add(`${request.method} ${request.url} ${request.headers["x-a"]} ${Buffer.concat(body)}`)
            response.end()
            resume(Effect.void)
          })
        })
      )
    )
    const request = { method: "POST", path: "/p", headers: { "x-a": "b" }, body: "sent" }
    expect((await swept(serve, { request, modes: ["reset"] })).ok).toBe(true)
    expect([...seen]).toEqual(["POST /p b sent"])
  })

  test("says that no handler ran inside of watch", async () => {
    const serve: Serve = () => nodeHttp(({ response }) => Effect.sync(() => response.end()))((self) => self)
    await expect(swept(serve)).rejects.toThrow("put it around the effect that handles the request")
  })
})

describe("over a connection, a planted bug is found", { timeout: 60_000 }, () => {
  test("a resource that stays when the client leaves, with the step and the line", async () => {
    const serve = serving(
      Effect.map(
        Probe.resource("lock"),
        (lock) =>
          ({ response }) =>
            Effect.gen(function* () {
              yield* lock.acquire
              yield* pause
              yield* lock.release
              response.end("done")
            })
      )
    )
    const report = await swept(serve)
    expect(kinds(report)).toEqual(["NotReleased lock"])
    const [first] = report.findings
    expect(first?.mode).toBe("reset")
    expect(first?.step).toBeGreaterThan(1)
    expect(first?.position?.source).toMatch(/^packages\/testing\/test\/http\.test\.ts:\d+:\d+$/)
    expect(formatSweep(report)).toContain("(the client's socket reset, fresh state)")
    expect(formatSweep(report)).toContain("(the request aborted by its client, kept state)")
  })

  test("a permit that is lost", async () => {
    const serve = serving(
      Effect.gen(function* () {
        const semaphore = yield* Semaphore.make(50)
        yield* Probe.permits("pool", semaphore)
        return ({ response }) =>
          Effect.gen(function* () {
            yield* semaphore.take(1)
            yield* pause
            yield* semaphore.release(1)
            response.end("done")
          })
      })
    )
    expect(kinds(await swept(serve, { modes: ["reset"] }))).toEqual(["PermitLost pool"])
  })

  test("a handler that does not end when its client has left", async () => {
    const serve = serving(
      Effect.map(
        Deferred.make<void>(),
        (never) =>
          ({ response }) =>
            Effect.onInterrupt(
              Effect.andThen(
                pause,
                Effect.sync(() => response.end("done"))
              ),
              () =>
                Effect.gen(function* () {
                  yield* Deferred.await(never)
                })
            )
      )
    )
    const report = await swept(serve, { modes: ["reset"], states: ["fresh"], patience: 0 })
    expect(kinds(report)).toEqual(["NotTerminated"])
    expect(report.findings[0]?.waiting.some(({ source }) => source?.includes("http.test.ts"))).toBe(true)
  })

  test("a fiber that goes on after its request", async () => {
    const serve = serving(
      Effect.succeed(({ response }) =>
        Effect.onInterrupt(
          Effect.andThen(
            pause,
            Effect.sync(() => response.end("done"))
          ),
          () => Effect.asVoid(Effect.forkDetach(Effect.never))
        )
      )
    )
    expect(kinds(await swept(serve, { modes: ["abort"], states: ["fresh"] }))).toEqual(["FiberLeft"])
  })

  test("a context that is used after its end", async () => {
    const serve = serving(
      Effect.map(
        Probe.context("transaction"),
        ({ begin }) =>
          ({ response }) =>
            Effect.gen(function* () {
              const transaction = yield* begin
              yield* Effect.forkChild(
                Effect.onInterrupt(Effect.sleep("2 seconds"), () => transaction.use),
                { startImmediately: true }
              )
              yield* Effect.ensuring(pause, transaction.end)
              response.end("done")
            })
      )
    )
    const report = await swept(serve, { modes: ["reset"], states: ["kept"] })
    expect(kinds(report)).toContain("UsedAfterEnd transaction")
  })

  test("a wrong answer to the request after it", async () => {
    const serve = serving(
      Effect.sync(() => {
        let busy = 0
        return ({ response }) =>
          Effect.gen(function* () {
            if (busy++ > 0) response.statusCode = 409
            yield* pause
            busy--
            response.end("served")
          })
      })
    )
    const report = await swept(serve, { modes: ["reset"], states: ["fresh"] })
    expect(kinds(report)).toEqual(["WrongAnswer"])
    expect(report.findings[0]?.message).toContain("409")
  })

  test("a response whose stream is not closed when it is cut short", async () => {
    const serve = serving(
      Effect.map(
        Probe.resource("file"),
        (file) =>
          ({ response }) =>
            Effect.gen(function* () {
              yield* file.acquire
              for (let i = 0; i < 3; i++) {
                yield* Effect.sync(() => response.write(`part ${i}`))
                yield* Effect.sleep("1 second")
              }
              yield* file.release
              response.end()
            })
      )
    )
    const report = await swept(serve, { modes: ["response"] })
    expect(kinds(report)).toEqual(["NotReleased file"])
    expect(new Set(report.findings.map(({ step }) => step))).toEqual(new Set([1, 2, 3]))
    expect(formatSweep(report)).toContain("steps 1–3 (the client's socket reset at a part of the answer")
  })
})
