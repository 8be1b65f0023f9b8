import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/**
 * What is promised about a handler whose peer leaves. `shield`: it runs to its end, the answer is dropped. `cancel`: it
 * is interrupted. `grace`: interrupted that long after. `detach`: it runs to its end, the edge is done at once. `stock`:
 * a handler as the transport runs it without any policy.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Policy = "shield" | "cancel" | "grace" | "detach" | "stock"

/**
 * One case of a conformance suite: for `test.each`, or any other runner.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ConformanceCase {
  readonly name: string
  readonly run: Effect.Effect<void, NotConformant>
}

/**
 * A case does not hold.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class NotConformant extends /* @__PURE__ */ Data.TaggedError("NotConformant")<{
  readonly name: string
  /** What was wrong, one sentence each. */
  readonly problems: ReadonlyArray<string>
  /** What happened, in order. */
  readonly log: ReadonlyArray<string>
}> {
  /** The problems, and what happened. */
  override get message(): string {
    return `${this.name}: ${this.problems.join("; ")}. What happened: ${this.log.join(", ")}.`
  }
}

/**
 * One call, as the driver hands it to the handler of a case.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface DisconnectCall {
  /** Sends a part of the answer. */
  readonly write: (part: string) => Effect.Effect<void>
  /** Resumes with the tag of the reason when the peer has left. `undefined` where handlers cannot ask. */
  readonly peerGone: Effect.Effect<string> | undefined
  /** The tag of the reason for which the running fiber is cancelled. `undefined` where there are no reasons. */
  readonly reason: Effect.Effect<string> | undefined
}

/**
 * What a driver serves: the handler of a case, under a policy.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface DisconnectEndpoint {
  readonly policy: Policy
  /** How long the grace is, in virtual time. */
  readonly grace: Duration.Duration
  /** To be run once for each call; its value is the answer, or the last part of it. */
  readonly handler: (call: DisconnectCall) => Effect.Effect<string>
  /** To be run when the edge is done with a call: nothing of it holds the transport any more. */
  readonly edgeDone: Effect.Effect<void>
}

/**
 * How a transport serves a handler. `Link` is what its clients need to make a call: a port, a channel.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface DisconnectDriver<Link, E = never, R = never> {
  readonly name: string
  /** The policies it knows. */
  readonly policies: ReadonlyArray<Policy>
  /** What becomes of a stock handler whose peer leaves. Default: it runs on. */
  readonly stock?: "interrupted" | "runsOn" | undefined
  /** Whether its server hears of a departure at all; where not, the handler has to run on. Default: it does. */
  readonly hears?: ((departure: string) => boolean) | undefined
  /** Starts a server, until the scope closes. Its handlers run in the context of this effect. */
  readonly serve: (endpoint: DisconnectEndpoint) => Effect.Effect<Link, E, R | Scope.Scope>
  /** How many connections or streams the server still has. */
  readonly connections: (link: Link) => number
  /** Whatever is still alive after the server has closed, in words: the live tree of the program. */
  readonly left?: Effect.Effect<ReadonlyArray<string>> | undefined
}

/**
 * What the client of a departure waits for and tells.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Meeting {
  /** Resumes when the handler has come to where the departure wants it. */
  readonly reached: Effect.Effect<void>
  /** To be run right before leaving. */
  readonly leaving: Effect.Effect<void>
}

/**
 * One way in which a client leaves.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Departure<Link> {
  readonly name: string
  /** Where the call is then: its handler has not started, waits, has sent a part of its answer, has answered. */
  readonly at: "beforeStart" | "running" | "streaming" | "answered"
  /** Calls that are answered before it on the same connection. Default: none. */
  readonly earlier?: number | undefined
  /** Turns of the event loop within which the server has to know. `undefined`: however long the system takes. */
  readonly within?: number | undefined
  /** Makes the call, leaves, and says what the client got. Its scope closes at the end of the case. */
  readonly leave: (link: Link, meeting: Meeting) => Effect.Effect<string, never, Scope.Scope>
  /** What the client has to have got. */
  readonly gets: string
}
