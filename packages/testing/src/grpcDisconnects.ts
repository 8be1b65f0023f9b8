import type { EventEmitter } from "node:events"
import type * as grpc from "@grpc/grpc-js"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { NotConformant } from "./Disconnects.ts"
import type { GrpcLink } from "./grpc.ts"
import { cells } from "./internal/grpcMatrix.ts"
import { tableOf } from "./internal/grpcTable.ts"

/**
 * What is promised about a handler whose client leaves. `unmarked`: as the default policy says, a request runs to its
 * end, a response stream is interrupted. `stock`: a grpc-js callback handler, which only sees events.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type GrpcColumn = "unmarked" | "cancellable" | "grace" | "detached" | "stock"

/**
 * The four kinds of calls.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type GrpcKind = "unary" | "clientStream" | "serverStream" | "bidi"

/**
 * One call, as the driver hands it to the handler of a cell.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcMatrixCall {
  /** The requests of a call that streams them. */
  readonly requests: Stream.Stream<string, unknown> | undefined
  /** Resumes with the tag of the reason when the client has left. */
  readonly peerGone: Effect.Effect<string>
  /** Runs an effect with that tag, as long as the handler's `Scope` is open. */
  readonly onPeerGone: (
    told: (reason: string) => Effect.Effect<void>
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Runs clean-up with the tag of the reason iff the handler is cancelled. */
  readonly guard: (
    cleanup: (reason: string) => Effect.Effect<void>
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Resumes when the answer has been handed over. */
  readonly completed: Effect.Effect<void>
  /** The tag of the reason for which the running fiber is cancelled, or `none`. */
  readonly reason: Effect.Effect<string>
  /** The call object, for a count of its listeners. */
  readonly raw: EventEmitter
}

/**
 * The service that a driver serves: one method for each kind, whose messages are texts.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type GrpcMatrixDefinition = {
  readonly [K in GrpcKind]: grpc.MethodDefinition<string, string> & {
    readonly requestStream: K extends "clientStream" | "bidi" ? true : false
    readonly responseStream: K extends "serverStream" | "bidi" ? true : false
  }
}

/**
 * What a driver serves: the handler of a cell, under a policy.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcMatrixEndpoint {
  readonly column: GrpcColumn
  readonly definition: GrpcMatrixDefinition
  /** For the kinds with one answer. Under the policy of the column, and never for `stock`. */
  readonly answer: (call: GrpcMatrixCall) => Effect.Effect<string, never, Scope.Scope>
  /** For the kinds that stream their answers. */
  readonly answers: (call: GrpcMatrixCall) => Stream.Stream<string, never, Scope.Scope>
  /** To be registered as it is, in the column `stock`. */
  readonly stock: grpc.UntypedServiceImplementation
  /** How long the grace is. */
  readonly grace: Duration.Duration
  /** The server's own limit of time for a call, if the cell wants one. */
  readonly timeLimit: Duration.Duration | undefined
  /** How long calls may end by themselves when the server stops. */
  readonly drain: Duration.Duration
  /** When the server pings its clients, and how long it waits for them. */
  readonly keepalive: { readonly time: Duration.Duration; readonly timeout: Duration.Duration } | undefined
}

/**
 * A server that listens.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcMatrixLink extends GrpcLink {
  /** What is in flight at the server: calls, and whatever carries one of its own for each. */
  readonly inFlight: Effect.Effect<number>
  /** The tags of the reasons of all cancellations that the server has counted. `undefined`: it does not count. */
  readonly cancellations: (() => ReadonlyArray<string>) | undefined
  /** Stops the server in stages, and resumes when it has stopped. */
  readonly stop: Effect.Effect<void>
  /** The arguments of a Node process that calls the method with this path, with a request `q`, and holds the call. */
  readonly elsewhere: (path: string, kind: GrpcKind) => Effect.Effect<ReadonlyArray<string>>
}

/**
 * How a transport serves handlers and is called.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcMatrixDriver<E = never, R = never> {
  readonly name: string
  /** Starts a server, until the scope closes. Its handlers run in the context of this effect. */
  readonly open: (endpoint: GrpcMatrixEndpoint) => Effect.Effect<GrpcMatrixLink, E, R | Scope.Scope>
  /** Which of `cancelled`, `end` and `drain` a stock handler sees: whatever the transport shows it is pinned. */
  readonly stock: (departure: string, kind: GrpcKind) => ReadonlyArray<string>
  /**
   * Whether a call that streams its requests comes to its handler although it is cancelled in the turn in which it was
   * made. Default: it does not.
   */
  readonly eager?: boolean | undefined
  /** The details of the status that the client gets. `undefined`: whatever they are. */
  readonly details: (departure: string, column: GrpcColumn) => string | undefined
  /** Whatever is still alive after the server has closed, in words: the live tree of the program. */
  readonly left: Effect.Effect<ReadonlyArray<string>>
}

/**
 * What happened in a cell.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcOutcome {
  readonly departure: string
  readonly kind: GrpcKind
  readonly column: GrpcColumn
  /** What became of the handler, in words. */
  readonly handler: string
  /** What the client got: the name of a status code, or `nothing` where it is dead. */
  readonly client: string
  readonly details: string
  /** Turns of the event loop from the departure until the server knew of it. */
  readonly turns: number | undefined
  /** Milliseconds of the same. */
  readonly millis: number | undefined
}

/**
 * A cell of the matrix: for `test.each`, or any other runner.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcCell {
  readonly name: string
  readonly departure: string
  readonly kind: GrpcKind
  readonly column: GrpcColumn
  readonly run: Effect.Effect<GrpcOutcome, NotConformant>
}

/**
 * The disconnect matrix of gRPC: each way for a call to end early, with each kind of endpoint, as cells to run.
 *
 * **Guarantees**
 *
 * - **What the handler saw**: whether it started, was told, was interrupted, with which reason; what its guard,
 *   `onPeerGone`, `completed` and request stream said.
 * - **When**: within a bounded number of turns where both ends are in this process; a grace not before it is over.
 * - **What the other side got**: the status, with its details.
 * - **Nothing left**: no fiber, timer, socket, process, listener; nothing in flight, nothing in the driver's tree.
 *
 * **When cancelled**
 *
 * The server of the cell is closed, and its client's process killed.
 *
 * **Gotchas**
 *
 * Time is real: a cell waits for events and never for a time, except that a grace, a deadline and a keepalive pass.
 * One cell at a time: the timers and sockets of the whole process are counted. Needs Node, and signals.
 *
 * **Example**
 *
 * ```ts no-run
 * import * as Effect from "effect/Effect"
 * import { formatGrpcMatrix, type GrpcMatrixDriver, grpcDisconnectMatrix } from "@curfew/testing/grpcDisconnects"
 *
 * declare const driver: GrpcMatrixDriver
 *
 * const cells = grpcDisconnectMatrix(driver)
 * const outcomes = await Effect.runPromise(Effect.forEach(cells, ({ run }) => run))
 * console.log(formatGrpcMatrix(outcomes))
 * ```
 *
 * @see disconnectMatrix for HTTP.
 * @stability unstable
 * @since 0.1.0
 */
export const grpcDisconnectMatrix = <E>(
  driver: GrpcMatrixDriver<E>,
  options: {
    /** Real time to wait for an event before a cell has failed. Default: 10 seconds. */
    readonly patience?: Duration.Input | undefined
  } = {}
): ReadonlyArray<GrpcCell> => cells(driver, options.patience ?? "10 seconds")

/**
 * Outcomes as a table in Markdown: a row for each departure and kind, a column for each kind of endpoint.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const formatGrpcMatrix = (outcomes: Iterable<GrpcOutcome>): string => tableOf(outcomes)
