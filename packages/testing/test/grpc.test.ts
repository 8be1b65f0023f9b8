import type * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"
import { type GrpcServing, type GrpcSubject, type GrpcSweepOptions, grpcJs, sweepGrpc } from "../src/grpc.ts"
import { formatSweep, Probe, type SweepReport } from "../src/index.ts"

const identity = (bytes: Buffer): Buffer => bytes

const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/curfew.test.Swept/${name}`,
  requestStream,
  responseStream,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity
})

const service = {
  unary: method("Unary", false, false),
  clientStream: method("ClientStream", true, false),
  serverStream: method("ServerStream", false, true),
  bidi: method("Bidi", true, true)
} satisfies grpc.ServiceDefinition

const bytes = (text: string): Buffer => Buffer.from(text)
const pause = Effect.andThen(Effect.yieldNow, Effect.sleep("1 second"))

/** What a handler does between its call and its answer. */
type Body = (held: Probe.Resource) => Effect.Effect<void>

const soundly: Body = (held) => held.around(pause)
const wrongly: Body = (held) =>
  Effect.gen(function* () {
    yield* held.acquire
    yield* pause
    yield* held.release
  })

const handlers =
  (body: Body) =>
  ({ run }: GrpcServing) =>
    Effect.map(Probe.resource("row lock"), (held) => ({
      unary: ((call, reply) =>
        run(
          call,
          Effect.andThen(
            body(held),
            Effect.sync(() => reply(null, call.request))
          )
        )) satisfies grpc.handleUnaryCall<Buffer, Buffer>,
      clientStream: ((call, reply) => {
        const parts: Array<Buffer> = []
        const all = Effect.callback<void>((resume) => {
          call.on("data", (part: Buffer) => parts.push(part))
          call.on("end", () => resume(Effect.void))
        })
        run(
          call,
          Effect.andThen(
            all,
            Effect.andThen(
              body(held),
              Effect.sync(() => reply(null, Buffer.concat(parts)))
            )
          )
        )
      }) satisfies grpc.handleClientStreamingCall<Buffer, Buffer>,
      serverStream: ((call) =>
        run(
          call,
          Effect.gen(function* () {
            for (let i = 0; i < 3; i++) {
              yield* body(held)
              yield* Effect.sync(() => call.write(bytes(`part ${i}`)))
            }
            call.end()
          })
        )) satisfies grpc.handleServerStreamingCall<Buffer, Buffer>,
      bidi: ((call) => {
        call.on("data", (part: Buffer) => {
          run(
            call,
            Effect.andThen(
              body(held),
              Effect.sync(() => {
                call.write(part)
                call.end()
              })
            )
          )
        })
      }) satisfies grpc.handleBidiStreamingCall<Buffer, Buffer>
    }))

const subject = (name: keyof typeof service, body: Body): GrpcSubject => ({
  service,
  handlers: handlers(body),
  call: { method: name, messages: [bytes("sent")] }
})

const swept = (of: GrpcSubject, options?: GrpcSweepOptions): Promise<SweepReport> =>
  Effect.runPromise(sweepGrpc(grpcJs, of, options))

const shapes = ["unary", "clientStream", "serverStream", "bidi"] as const

describe("a sweep over gRPC", { timeout: 60_000 }, () => {
  test.each(shapes)("passes a sound %s handler, however its client leaves", async (name) => {
    const report = await swept(subject(name, soundly), name === "unary" ? {} : { states: ["kept"] })
    expect(formatSweep(report)).toContain("nothing broken")
    expect(report).toMatchObject({ ok: true, complete: true })
    expect(report.steps).toBeGreaterThan(10)
    expect(report.runs).toBeGreaterThan(report.steps * 2)
  })

  test.each(shapes)("finds what a %s handler leaves behind", async (name) => {
    for (const mode of ["cancel", "disconnect"] as const) {
      const report = await swept(subject(name, wrongly), { modes: [mode], states: ["fresh"] })
      expect(new Set(report.findings.map(({ kind, probe }) => `${kind} ${probe}`))).toEqual(
        new Set(["NotReleased row lock"])
      )
      const sources = report.findings.map(({ position }) => position?.source ?? "")
      expect(sources.some((source) => source.includes("packages/testing/test/grpc.test.ts"))).toBe(true)
      expect(formatSweep(report)).toContain(
        mode === "cancel" ? "the call cancelled by its client" : "the client's connection destroyed"
      )
    }
  })

  test("cancels at each message of the answer", async () => {
    const report = await swept(subject("serverStream", wrongly), { modes: ["response"], states: ["fresh"] })
    expect(report.findings.map(({ kind, step }) => `${kind} ${step}`)).toEqual([
      "NotReleased 1",
      "NotReleased 2"
    ])
  })

  test("says that the service has no such method", async () => {
    const wrong = { ...subject("unary", soundly), call: { method: "none", messages: [] } }
    await expect(swept(wrong)).rejects.toThrow("The service has no method none; call one of these: unary, ")
  })
})
