/** A client that leaves at every step of its handler, and a server that is stopped there. */
import { CancelReason } from "@curfew/reason"
import { type OnDisconnect, onDisconnect } from "@curfew/request"
import { Owner, TaskScope } from "@curfew/scope"
import { Probe, sweep } from "@curfew/testing"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { Server, ServerCalls } from "../src/index.ts"
import { FakeCall } from "./support/fakeCall.ts"
import { FakeHost } from "./support/fakeHost.ts"
import { definition, echo, type Kind, kinds, run, watching } from "./support/serving.ts"

const policies: ReadonlyArray<OnDisconnect> = ["cancel", "shield", { grace: "1 second" }, "detach"]

type Way = "a call object" | "a plain call"

const ways: ReadonlyArray<Way> = ["a call object", "a plain call"]

/** A call of a service, by either of its ways in. */
const calling = (way: Way, handler: unknown, kind: Kind, done: (outcome: string) => void) => {
  const requests = ["a", "b", "c"]
  if (way === "a plain call") {
    const host = new FakeHost(requests, done)
    host.enter(handler, kind === "ClientStream" || kind === "Bidi")
    return host
  }
  const call = new FakeCall(requests, done)
  ;(handler as (call: FakeCall, respond: FakeCall["respond"]) => void)(call, call.respond)
  return call
}

/** One call in memory, to its end: what its client got, and that nothing of it is left. */
const subject = (
  way: Way,
  kind: Kind,
  policy: OnDisconnect,
  onCall: (call: FakeCall | FakeHost, calls: ServerCalls.ServerCalls) => void
) => ({
  name: `${kind} under ${typeof policy === "string" ? policy : "grace"}`,
  setup: Effect.gen(function* () {
    const rows = yield* Probe.resource("row")
    const answers = yield* Probe.resource("answer")
    const owner = yield* TaskScope.make({ name: "server" })
    const calls = yield* ServerCalls.make()
    const mark = onDisconnect(policy)
    const step = Effect.scoped(Effect.andThen(rows.scoped, Effect.sleep("1 second")))
    const service = yield* Effect.provideService(
      Server.make(
        definition,
        {
          Unary: mark((request: string) => Effect.as(step, request)),
          ClientStream: mark((requests: Server.RequestStream<string>) =>
            Effect.map(Stream.runCollect(Stream.tap(requests, () => step)), (all) => all.join(""))
          ),
          ServerStream: mark((request: string) =>
            Stream.mapEffect(Stream.fromIterable(request), (it) => Effect.as(step, it))
          ),
          Bidi: mark((requests: Server.RequestStream<string>) => Stream.tap(requests, () => step))
        },
        { calls }
      ),
      Owner,
      owner
    )
    return Effect.gen(function* () {
      const done = Deferred.makeUnsafe<string>()
      yield* answers.acquire
      const call = calling(way, service.implementation[kind], kind, (outcome) =>
        Deferred.doneUnsafe(done, Effect.succeed(outcome))
      )
      onCall(call, calls)
      const outcome = yield* Deferred.await(done)
      yield* calls.drain()
      yield* answers.release
      return `${outcome}: ${outcome === "status 0" ? call.sent.join("") : ""}`
    })
  })
})

/** A transport that drains while it is being written to: the event is over when anybody could wait for it. */
class QuickCall extends FakeCall {
  override readonly write = (bytes: Buffer): boolean => {
    this.sent.push(bytes.toString())
    this.emit("drain")
    return false
  }
}

test("L41 a drain that comes before the wait for it is seen", () =>
  run(
    Effect.gen(function* () {
      const { context } = yield* watching
      const service = yield* Effect.provide(Server.make(definition, echo), context)
      const done = Deferred.makeUnsafe<string>()
      const call = new QuickCall(["abc"], (outcome) => Deferred.doneUnsafe(done, Effect.succeed(outcome)))
      ;(service.implementation["ServerStream"] as unknown as (call: FakeCall) => void)(call)
      expect([yield* Deferred.await(done), call.sent]).toEqual(["status 0", ["a", "b", "c"]])
    })
  ))

describe.each(kinds.flatMap((kind) => ways.map((way) => [kind, way] as const)))("%s by %s", (kind, way) => {
  test.each(policies)(
    "L39 under %j: whatever step its client leaves at, the call ends once and leaves nothing",
    async (policy) => {
      let current: FakeCall | FakeHost | undefined
      const report = await Effect.runPromise(
        sweep(
          subject(way, kind, policy, (call) => {
            current = call
          }),
          { modes: ["root"], cancel: () => current?.leave() }
        )
      )
      expect(report.findings.map((finding) => finding.message)).toEqual([])
      expect(report.steps).toBeGreaterThan(20)
    }
  )

  test.each(policies)(
    "L48 under %j: whatever step it is stopped at, the call ends once and leaves nothing",
    async (policy) => {
      const seen = new Set<string>()
      let stop = (): void => undefined
      const report = await Effect.runPromise(
        sweep(
          subject(way, kind, policy, (call, calls) => {
            stop = () => {
              Effect.runSync(calls.cancel(CancelReason.Shutdown({ phase: "force" })))
              queueMicrotask(() => seen.add(call.outcome ?? "open"))
            }
          }),
          { modes: ["root"], states: ["fresh"], cancel: () => stop() }
        )
      )
      expect(report.findings.map((finding) => finding.message)).toEqual([])
      expect([...seen].filter((it) => !["open", "status 0", "status 14"].includes(it))).toEqual([])
      expect(seen.size).toBeGreaterThan(1)
    }
  )
})
