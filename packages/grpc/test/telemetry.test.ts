import { CancelReason } from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { Client } from "../src/index.ts"
import { definition, insecure, serve, turns } from "./support/echo.ts"
import { echoing, memoryChannel } from "./support/memoryChannel.ts"

/** A tracer that keeps its spans. */
const keeping = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { spans, tracer }
}

const attributes = (span: Tracer.Span | undefined) => Object.fromEntries(span?.attributes ?? [])

describe("the span of a call", () => {
  it.live("has the attributes of OpenTelemetry, is the child of the caller's, and its context goes out", () =>
    Effect.gen(function* () {
      const seen: Array<grpc.MetadataValue> = []
      const address = yield* serve({
        Unary: (call, reply) => {
          seen.push(...call.metadata.get("traceparent"))
          reply({ code: grpc.status.NOT_FOUND, details: "gone" })
        },
        ServerStream: (call) => {
          seen.push(...call.metadata.get("traceparent"))
          call.end()
        }
      })
      const { spans, tracer } = keeping()
      const echo = yield* Client.make(definition, { address, credentials: insecure })
      const stale = { traceparent: "00-00000000000000000000000000000001-0000000000000001-01" }
      yield* Effect.andThen(
        Effect.ignore(echo.Unary("hello", { metadata: stale })),
        Stream.runDrain(echo.ServerStream("0"))
      ).pipe(Effect.withSpan("order"), Effect.provideService(Tracer.Tracer, tracer))
      const [order, unary, stream] = spans
      expect(spans.length).toBe(3)
      expect(unary).toMatchObject({ name: "curfew.test.Echo/Unary", kind: "client", traceId: order?.traceId })
      expect(attributes(unary)).toEqual({
        "rpc.system": "grpc",
        "rpc.service": "curfew.test.Echo",
        "rpc.method": "Unary",
        "rpc.grpc.status_code": 5
      })
      expect(attributes(stream)).toMatchObject({ "rpc.method": "ServerStream", "rpc.grpc.status_code": 0 })
      expect(seen).toEqual([unary, stream].map((span) => `00-${span?.traceId}-${span?.spanId}-01`))
      expect(spans.every((span) => span.status._tag === "Ended")).toBe(true)
    })
  )

  it.live("says why a call was cancelled", () =>
    Effect.gen(function* () {
      const { channel } = memoryChannel()
      const { spans, tracer } = keeping()
      const echo = yield* Client.make(definition, { channel })
      yield* CancelScope.run((scope) =>
        Effect.andThen(
          Effect.forkChild(Effect.andThen(turns(2), scope.cancel(CancelReason.Superseded()))),
          echo.Unary("hello")
        )
      ).pipe(Effect.provideService(Tracer.Tracer, tracer))
      expect(attributes(spans[0])).toMatchObject({
        "rpc.grpc.status_code": 1,
        "curfew.cancel.reason": "Superseded"
      })
    })
  )

  it.live("leaves the caller's trace context alone where tracing is off", () =>
    Effect.gen(function* () {
      const { calls, channel } = memoryChannel(echoing)
      const echo = yield* Client.make(definition, { channel })
      const given = "00-00000000000000000000000000000001-0000000000000001-01"
      yield* Effect.withTracerEnabled(echo.Unary("hello", { metadata: { traceparent: given } }), false)
      expect(calls[0]?.metadata.get("traceparent")).toEqual([given])
    })
  )
})

describe("the reason of a cancel", () => {
  it.live("goes out as a sentence, and as a value where the channel takes it", () =>
    Effect.gen(function* () {
      const plain = memoryChannel()
      const reasoned = memoryChannel(() => {}, { reasoned: true })
      for (const { channel } of [plain, reasoned]) {
        const echo = yield* Client.make(definition, { channel })
        yield* CancelScope.run((scope) =>
          Effect.andThen(
            Effect.forkChild(Effect.andThen(turns(2), scope.cancel(CancelReason.Superseded()))),
            echo.Unary("hello")
          )
        )
      }
      const details = "newer work has taken its place"
      expect(plain.calls[0]?.cancelledWith).toEqual({ code: 1, details })
      expect(reasoned.calls[0]?.cancelledWith).toEqual({
        code: 1,
        details,
        reason: CancelReason.Superseded()
      })
    })
  )
})

describe("metrics", () => {
  it.live("count what was started, completed by code, cancelled by reason, and what is in flight", () =>
    Effect.gen(function* () {
      const service = {
        Unary: { ...definition.Unary, path: "/metrics.Probe/Unary" },
        Bidi: { ...definition.Bidi, path: "/metrics.Probe/Bidi" }
      } as const
      const { channel } = memoryChannel((call, event) => {
        if (event === "halfClose" && call.sent[0] === "hello") echoing(call, event)
        if (event === "halfClose" && call.sent[0] === "fail") call.end(grpc.status.NOT_FOUND)
      })
      const probe = yield* Client.make(service, { channel })
      const method = { method: "metrics.Probe/Unary" }
      const read = <I, S>(metric: Metric.Metric<I, S>, more: Record<string, string> = {}) =>
        Metric.value(Metric.withAttributes(metric, { ...method, ...more }))
      yield* probe.Unary("hello")
      yield* Effect.ignore(probe.Unary("fail"))
      yield* Effect.ignore(probe.Unary("never", { timeout: 0 }))
      yield* CancelScope.run((scope) =>
        Effect.andThen(
          Effect.forkChild(
            Effect.gen(function* () {
              yield* turns(2)
              expect((yield* read(Client.active)).value).toBe(1)
              yield* scope.cancel(CancelReason.Superseded())
            })
          ),
          probe.Unary("never")
        )
      )
      expect((yield* read(Client.started)).count).toBe(4)
      expect((yield* read(Client.completed, { code: "OK" })).count).toBe(1)
      expect((yield* read(Client.completed, { code: "NOT_FOUND" })).count).toBe(1)
      expect((yield* read(Client.completed, { code: "DEADLINE_EXCEEDED" })).count).toBe(1)
      expect((yield* read(Client.cancelled, { reason: "Superseded" })).count).toBe(1)
      expect((yield* read(Client.active)).value).toBe(0)
      yield* Effect.ignore(Stream.runDrain(probe.Bidi(Stream.fail("broke"))))
      const failed = Metric.withAttributes(Client.cancelled, {
        method: "metrics.Probe/Bidi",
        reason: "SiblingFailed"
      })
      expect((yield* Metric.value(failed)).count).toBe(1)
    })
  )
})
