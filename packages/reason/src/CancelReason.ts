import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import { unknown, unknownReason } from "./internal/unknown.ts"

/**
 * Why a piece of work stops. Every cancellation that Curfew sends carries one of these values.
 *
 * **Guarantees**
 *
 * - **Set before sent**: the reason stands in the cancelled scope before the interrupt leaves.
 * - **First wins**: a later cancel of the same scope does not replace it.
 *
 * | tag | who sends it | fields |
 * | --- | --- | --- |
 * | `ClientGone` | an edge, when the peer left | `transport`, what was seen as `detail`, and why the peer says that it left as `because` |
 * | `Deadline` | a deadline that passed | `at` (wall clock, ms since 1970), `origin`, the `scope`'s name |
 * | `Shutdown` | a staged shutdown | `phase` |
 * | `SiblingFailed` | a task scope or gather that fails fast | the `cause` of the first failure |
 * | `Unobserved` | shared work that lost its last waiter | how long it `lingered` |
 * | `LimitExceeded` | a server, for its own sake | which `limit`, and in words how much it allows |
 * | `Superseded` | newer work that replaces this | |
 * | `Requested` | a person or a program that asked | `message` |
 * | `Unknown` | an interrupt from outside Curfew that said nothing | |
 *
 * **Example**
 *
 * ```ts
 * import { CancelReason } from "@curfew/reason"
 *
 * const reason = CancelReason.Requested({ message: "the user closed the dialog" })
 * reason._tag // => "Requested"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export type CancelReason =
  | {
      readonly _tag: "ClientGone"
      readonly transport: "http1" | "http2" | "ws" | "grpc" | "tunnel" | "tcp"
      readonly detail?: string
      readonly because?: CancelReason
    }
  | {
      readonly _tag: "Deadline"
      readonly at: number
      readonly origin: "local" | "remote"
      readonly scope?: string
    }
  | { readonly _tag: "Shutdown"; readonly phase: "drain" | "force" }
  | { readonly _tag: "SiblingFailed"; readonly cause: Cause.Cause<unknown> }
  | { readonly _tag: "Unobserved"; readonly lingered: Duration.Duration }
  | { readonly _tag: "LimitExceeded"; readonly limit: string; readonly detail?: string }
  | { readonly _tag: "Superseded" }
  | { readonly _tag: "Requested"; readonly message: string }
  | { readonly _tag: "Unknown" }

type Tag = CancelReason["_tag"]
type Fields<T extends Tag> = Omit<Extract<CancelReason, { readonly _tag: T }>, "_tag">

const tagged =
  <T extends Tag>(tag: T) =>
  (fields: Fields<T>): CancelReason =>
    ({ _tag: tag, ...fields }) as unknown as CancelReason

/**
 * The constructors of {@link CancelReason}, one per tag.
 *
 * **Example**
 *
 * ```ts
 * import { CancelReason } from "@curfew/reason"
 *
 * const reason = CancelReason.ClientGone({ transport: "http2" })
 * reason // => { _tag: "ClientGone", transport: "http2" }
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const CancelReason = {
  ClientGone: /* @__PURE__ */ tagged("ClientGone"),
  Deadline: /* @__PURE__ */ tagged("Deadline"),
  Shutdown: /* @__PURE__ */ tagged("Shutdown"),
  SiblingFailed: /* @__PURE__ */ tagged("SiblingFailed"),
  Unobserved: /* @__PURE__ */ tagged("Unobserved"),
  LimitExceeded: /* @__PURE__ */ tagged("LimitExceeded"),
  Superseded: (): CancelReason => superseded,
  Requested: /* @__PURE__ */ tagged("Requested"),
  Unknown: unknownReason
} as const

const superseded: CancelReason = { _tag: "Superseded" }

type Unchecked = Readonly<Record<string, unknown>>

const optionalString = (u: unknown): boolean => u === undefined || typeof u === "string"
// A tag without fields is a common word: with fields beside it the value is somebody else's.
const bare = (u: Unchecked): boolean => Object.keys(u).length === 1

const transports: ReadonlyArray<unknown> = ["http1", "http2", "ws", "grpc", "tunnel", "tcp"]

// A value may hold itself; no reason is told through this many hands.
const deepest = 16

const shapes: Record<Tag, (u: Unchecked, depth: number) => boolean> = {
  ClientGone: (u, depth) =>
    transports.includes(u["transport"]) &&
    optionalString(u["detail"]) &&
    (u["because"] === undefined || (depth < deepest && isReason(u["because"], depth + 1))),
  Deadline: (u) =>
    typeof u["at"] === "number" &&
    (u["origin"] === "local" || u["origin"] === "remote") &&
    optionalString(u["scope"]),
  Shutdown: (u) => u["phase"] === "drain" || u["phase"] === "force",
  SiblingFailed: (u) => Cause.isCause(u["cause"]),
  Unobserved: (u) => Duration.isDuration(u["lingered"]),
  LimitExceeded: (u) => typeof u["limit"] === "string" && optionalString(u["detail"]),
  Superseded: bare,
  Requested: (u) => typeof u["message"] === "string",
  Unknown: bare
}

/**
 * Tells whether a value is a {@link CancelReason}: an object, and no error, with one of its tags and with that tag's
 * fields. The tag alone does not make one; a program may have a `Deadline` of its own.
 *
 * **Example**
 *
 * ```ts
 * import { isCancelReason } from "@curfew/reason"
 *
 * isCancelReason({ _tag: "Superseded" }) // => true
 * isCancelReason({ _tag: "Deadline" }) // => false
 * isCancelReason(new Error("aborted")) // => false
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const isCancelReason = (u: unknown): u is CancelReason => isReason(u, 0)

const isReason = (u: unknown, depth: number): u is CancelReason => {
  if (typeof u !== "object" || u === null || u instanceof Error || !("_tag" in u)) return false
  const { _tag: tag } = u
  return (
    typeof tag === "string" &&
    Object.hasOwn(shapes, tag) &&
    shapes[tag as Tag](u as unknown as Unchecked, depth)
  )
}

/**
 * Reads what somebody aborted an `AbortSignal` with as a {@link CancelReason}.
 *
 * A reason stays itself, and so does one that an error carries as its `reason`; any other error or a string becomes
 * `Requested` with its message; the `AbortError` that `abort()` without an argument makes, and everything else, what
 * throws when it is looked at included, becomes `Unknown`.
 *
 * **Example**
 *
 * ```ts
 * import { fromAbort } from "@curfew/reason"
 *
 * fromAbort(new Error("tab closed")) // => { _tag: "Requested", message: "tab closed" }
 * fromAbort(42) // => { _tag: "Unknown" }
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const fromAbort = (u: unknown): CancelReason => {
  // What is read here may be anybody's: a getter that throws would end the process from inside an event listener.
  try {
    if (isCancelReason(u)) return u
    if (u instanceof Error && "reason" in u && isCancelReason(u.reason)) return u.reason
    if (typeof u === "string") return CancelReason.Requested({ message: u })
    if (u instanceof Error && u.name !== "AbortError")
      return CancelReason.Requested({ message: `${u.message}` })
  } catch {}
  return unknown
}

/**
 * Says a {@link CancelReason} as one sentence for a person.
 *
 * **Example**
 *
 * ```ts
 * import { CancelReason, describe } from "@curfew/reason"
 *
 * describe(CancelReason.Shutdown({ phase: "drain" })) // => "the server is shutting down (drain)"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const describe = (reason: CancelReason): string => {
  switch (reason._tag) {
    case "ClientGone": {
      const seen = reason.detail === undefined ? "" : `: ${reason.detail}`
      const said = reason.because === undefined ? "" : `: ${describe(reason.because)}`
      return `the client has gone (${reason.transport}${seen})${said}`
    }
    case "Deadline":
      return `the ${reason.origin === "remote" ? "peer's " : ""}deadline${
        reason.scope === undefined ? "" : ` of ${reason.scope}`
      } has passed`
    case "Shutdown":
      return `the server is shutting down (${reason.phase})`
    case "SiblingFailed":
      return "a sibling has failed"
    case "Unobserved":
      return "nobody waits for it any more"
    case "LimitExceeded":
      return reason.detail ?? `the limit ${reason.limit} is exceeded`
    case "Superseded":
      return "newer work has taken its place"
    case "Requested":
      return reason.message
    case "Unknown":
      return "interrupted without a reason"
  }
}
