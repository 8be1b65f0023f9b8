import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import { runs } from "../../../test/support/seed.ts"
import { Interruption } from "../src/CancelCell.ts"
import { CancelReason, fromAbort, fromCause, isCancelReason, describe as say, toCause } from "../src/index.ts"

const text = fc.string()
const anyReason: fc.Arbitrary<CancelReason> = fc.oneof(
  fc
    .record({
      transport: fc.constantFrom(
        "http1" as const,
        "http2" as const,
        "ws" as const,
        "grpc" as const,
        "tcp" as const
      ),
      detail: text
    })
    .map(CancelReason.ClientGone),
  fc
    .record(
      { at: fc.integer(), origin: fc.constantFrom("local" as const, "remote" as const), scope: text },
      { requiredKeys: ["at", "origin"] }
    )
    .map(CancelReason.Deadline),
  fc.constantFrom("drain" as const, "force" as const).map((phase) => CancelReason.Shutdown({ phase })),
  text.map((error) => CancelReason.SiblingFailed({ cause: Cause.fail(error) })),
  fc.nat().map((ms) => CancelReason.Unobserved({ lingered: Duration.millis(ms) })),
  text.map((limit) => CancelReason.LimitExceeded({ limit })),
  fc.constant(CancelReason.Superseded()),
  text.map((message) => CancelReason.Requested({ message })),
  fc.constant(CancelReason.Unknown())
)

describe("CancelReason", () => {
  test("a constructor gives a plain object with the tag and the fields", () => {
    expect(CancelReason.ClientGone({ transport: "ws" })).toEqual({ _tag: "ClientGone", transport: "ws" })
    expect(CancelReason.Deadline({ at: 5, origin: "local", scope: "lookup" })).toEqual({
      _tag: "Deadline",
      at: 5,
      origin: "local",
      scope: "lookup"
    })
    expect(CancelReason.Shutdown({ phase: "force" })).toEqual({ _tag: "Shutdown", phase: "force" })
    expect(CancelReason.LimitExceeded({ limit: "body" })).toEqual({ _tag: "LimitExceeded", limit: "body" })
    expect(CancelReason.Superseded()).toEqual({ _tag: "Superseded" })
    expect(CancelReason.Unknown()).toEqual({ _tag: "Unknown" })
    expect(Object.keys(CancelReason)).toHaveLength(9)
  })

  test("isCancelReason knows every reason and nothing else", () => {
    fc.assert(
      fc.property(anyReason, (reason) => isCancelReason(reason)),
      runs(100)
    )
    fc.assert(
      fc.property(fc.anything(), (value) => !isCancelReason(value)),
      runs(100)
    )
    for (const stranger of [
      null,
      undefined,
      "Unknown",
      { _tag: "toString" },
      { _tag: "__proto__" },
      { _tag: 1 }
    ])
      expect(isCancelReason(stranger)).toBe(false)
  })

  test("isCancelReason looks at the fields: a value of the program's own with the same tag is none", () => {
    class Unknown extends Data.TaggedError("Unknown")<object> {}
    class Requested extends Data.TaggedError("Requested")<{ readonly message: string }> {}
    for (const stranger of [
      { _tag: "Deadline" },
      { _tag: "Deadline", at: "tomorrow", origin: "local" },
      { _tag: "Deadline", at: 5, origin: "local", scope: 7 },
      { _tag: "ClientGone", transport: "carrier pigeon" },
      { _tag: "ClientGone", transport: "ws", detail: 1006 },
      { _tag: "Shutdown" },
      { _tag: "SiblingFailed", cause: new Error("no") },
      { _tag: "Unobserved", lingered: 5 },
      { _tag: "LimitExceeded", limit: 5 },
      { _tag: "LimitExceeded", limit: "work", detail: 5 },
      { _tag: "Requested" },
      { _tag: "Superseded", by: 7 },
      new Unknown(),
      new Requested({ message: "by the program" })
    ])
      expect(isCancelReason(stranger), JSON.stringify(stranger)).toBe(false)
    expect(fromAbort(new Requested({ message: "by the program" }))).toEqual(
      CancelReason.Requested({ message: "by the program" })
    )
    expect(fromAbort({ _tag: "Deadline" })).toEqual(CancelReason.Unknown())
  })

  test("describe says every reason as a sentence", () => {
    fc.assert(
      fc.property(
        anyReason,
        (reason) => typeof say(reason) === "string" && !say(reason).includes("undefined")
      ),
      runs(100)
    )
    expect(say(CancelReason.ClientGone({ transport: "http1" }))).toBe("the client has gone (http1)")
    expect(say(CancelReason.ClientGone({ transport: "http1", detail: "reset" }))).toBe(
      "the client has gone (http1: reset)"
    )
    expect(say(CancelReason.Deadline({ at: 0, origin: "local" }))).toBe("the deadline has passed")
    expect(say(CancelReason.Deadline({ at: 0, origin: "remote", scope: "call" }))).toBe(
      "the peer's deadline of call has passed"
    )
    expect(say(CancelReason.Requested({ message: "bye" }))).toBe("bye")
    expect(say(CancelReason.Unknown())).toBe("interrupted without a reason")
    expect(new Set(fc.sample(anyReason, 500).map((r) => r._tag)).size).toBe(9)
  })
})

describe("fromAbort", () => {
  test("a reason stays itself", () => {
    fc.assert(
      fc.property(anyReason, (reason) => {
        const controller = new AbortController()
        controller.abort(reason)
        return fromAbort(controller.signal.reason) === reason
      }),
      runs(100)
    )
  })

  test("an error that carries a reason is read for it, whatever its name", () => {
    const reason = CancelReason.Superseded()
    const error = Object.assign(new Error("cancelled"), { name: "AbortError", reason })
    expect(fromAbort(error)).toBe(reason)
    expect(fromAbort(Object.assign(new Error("odd"), { reason: "text" }))).toEqual({
      _tag: "Requested",
      message: "odd"
    })
  })

  test("an error or a string becomes Requested with its message", () => {
    expect(fromAbort(new TypeError("tab closed"))).toEqual({ _tag: "Requested", message: "tab closed" })
    expect(fromAbort("closed")).toEqual({ _tag: "Requested", message: "closed" })
    expect(fromAbort(new DOMException("too slow", "TimeoutError"))).toEqual({
      _tag: "Requested",
      message: "too slow"
    })
  })

  test("a bare abort and anything else become Unknown", () => {
    expect(fromAbort(AbortSignal.abort().reason)).toEqual(CancelReason.Unknown())
    for (const odd of [undefined, null, 42, Symbol("x"), { message: "no" }, () => 0])
      expect(fromAbort(odd)).toEqual(CancelReason.Unknown())
  })
})

describe("fromCause and toCause", () => {
  test("what toCause annotates is what fromCause reads, and the cause is a pure interrupt", () => {
    fc.assert(
      fc.property(anyReason, (reason) => {
        const cause = toCause(reason)
        expect(Cause.hasInterruptsOnly(cause)).toBe(true)
        expect(fromCause(cause)).toMatchObject({ _tag: "Some", value: reason })
      }),
      runs(100)
    )
  })

  test("the first reason is read, past failures, defects and native interrupts", () => {
    const first = CancelReason.Requested({ message: "first" })
    const cause = [
      Cause.fail("no"),
      Cause.die("no"),
      Cause.interrupt(3),
      toCause(first),
      toCause(CancelReason.Superseded())
    ].reduce<Cause.Cause<unknown>>(Cause.combine, Cause.empty)
    expect(fromCause(cause)).toMatchObject({ _tag: "Some", value: first })
    for (const none of [Cause.empty, Cause.fail(1), Cause.die(1), Cause.interrupt()])
      expect(fromCause(none)._tag).toBe("None")
  })

  test("a reason beside a failure or a defect is none that an interrupt carries", () => {
    for (const cause of [Cause.fail("no"), Cause.die("no")]) {
      const beside = Cause.annotate(cause, Interruption.context(CancelReason.Superseded()) as never)
      expect(fromCause(beside)._tag).toBe("None")
    }
  })
})
