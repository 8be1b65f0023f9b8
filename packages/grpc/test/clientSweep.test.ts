/** L8, L24: a call of each kind, cancelled at every step, leaves nothing behind at either end. */
import { CancelScope, OnUnhandled, stuck } from "@curfew/scope"
import { formatSweep, Probe, sweep } from "@curfew/testing"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { runs } from "../../../test/support/seed.ts"
import { Client } from "../src/index.ts"
import { definition, type Echo, serve, stockClient, until } from "./support/echo.ts"
import { echoing, memoryChannel } from "./support/memoryChannel.ts"

const programs: Record<
  string,
  (echo: Echo, requests: Stream.Stream<string>) => Effect.Effect<unknown, unknown>
> = {
  "a unary call": (echo) => echo.Unary("hello"),
  "a unary call with a deadline": (echo) => CancelScope.run(() => echo.Unary("hello", { timeout: "1 hour" })),
  "a unary call with a span": (echo) => Effect.withSpan(echo.Unary("hello", { timeout: "1 hour" }), "order"),
  "a server stream": (echo) => Stream.runCollect(echo.ServerStream("40")),
  "a server stream that is left early": (echo) => Stream.runCollect(Stream.take(echo.ServerStream("40"), 3)),
  "a client stream": (echo, requests) => echo.ClientStream(requests),
  "a client stream whose requests fail": (echo, requests) =>
    Effect.ignore(echo.ClientStream(Stream.concat(requests, Stream.fail("broke")))),
  "a bidirectional call": (echo, requests) => Stream.runCollect(echo.Bidi(requests)),
  "a bidirectional call that is left early": (echo, requests) =>
    Stream.runCollect(Stream.take(echo.Bidi(requests), 1))
}

const quiet = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, OnUnhandled, () => Effect.void)

describe("L8, L24: cancelled at every step, nothing is left", () => {
  for (const [name, program] of Object.entries(programs)) {
    it.live(`by ${name}`, () =>
      Effect.gen(function* () {
        const subject = {
          name,
          setup: Effect.gen(function* () {
            const { calls, channel } = memoryChannel(echoing)
            const producer = yield* Probe.resource("producer")
            yield* Probe.invariant("every call has its status", () => calls.every((call) => call.ended))
            yield* Probe.invariant("one write at a time", () => calls.every((call) => call.mostWriting <= 1))
            yield* Probe.invariant("nothing is stuck", () =>
              Effect.map(stuck, (records) => records.length === 0)
            )
            const echo = yield* Client.make(definition, { channel })
            const requests = Stream.unwrap(Effect.as(producer.scoped, Stream.make("a", "b", "c")))
            return quiet(program(echo, requests))
          })
        }
        const once = yield* sweep(subject, { modes: ["root"] })
        expect(once.ok, formatSweep(once)).toBe(true)
        expect(once.complete, formatSweep(once)).toBe(true)
        // A call without streams is one operation, and has few steps at which a cancel could fall.
        expect(once.runs).toBeGreaterThan(name.includes("unary") ? 15 : 50)
        // Two cancels, in strides.
        const twice = yield* sweep(subject, { modes: ["twice", "finalizers"], maxRuns: runs(300).numRuns })
        expect(twice.ok, formatSweep(twice)).toBe(true)
      })
    )
  }

  it.live("by a call of each kind over a socket", () =>
    Effect.gen(function* () {
      let open = 0
      const left = (): void => {
        open--
      }
      const address = yield* serve({
        Unary: (call, reply) => {
          open++
          call.on("cancelled", left)
          reply(null, call.request)
        },
        Bidi: (call) => {
          open++
          call.on("close", left)
          call.on("error", () => {})
          call.on("data", (text: string) => call.write(text))
          call.on("end", () => call.end())
        }
      })
      const client = yield* stockClient(address)
      const echo = yield* Client.make(definition, { client })
      for (const [name, program] of [
        ["unary", echo.Unary("hello")],
        ["bidi", Stream.runCollect(echo.Bidi(Stream.make("a", "b")))]
      ] as const) {
        const report = yield* sweep(
          { name, setup: Effect.succeed(quiet(program as Effect.Effect<unknown, unknown>)) },
          { modes: ["root"], states: ["fresh"], patience: "2 seconds" }
        )
        expect(report.ok, formatSweep(report)).toBe(true)
        yield* until(() => open === 0)
      }
    })
  )
})
