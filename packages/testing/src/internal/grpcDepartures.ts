/**
 * The rows of the gRPC matrix: how a call comes to an end before or beside its answer.
 *
 * Invariants
 * 1. Each call has a connection, or a process, of its own; the scope of the cell ends it.
 * 2. `leaving` is noted right before the act, in the same turn.
 */
import { type ChildProcess, spawn } from "node:child_process"
import type * as grpc from "@grpc/grpc-js"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { GrpcConnection } from "../grpc.ts"
import type {
  GrpcKind,
  GrpcMatrixDefinition,
  GrpcMatrixEndpoint,
  GrpcMatrixLink
} from "../grpcDisconnects.ts"
import { repeat } from "./gates.ts"

/** What is promised about the handler, before the column has its say. */
export type Fate =
  | { readonly _tag: "never" }
  | { readonly _tag: "leaves" }
  | { readonly _tag: "stopped"; readonly reasons: ReadonlyArray<string> }
  | { readonly _tag: "completes" }

/** A call of this process. */
export interface Calling {
  readonly cancel: () => void
  readonly end: () => void
  /** Resumes when so many messages of the answer have come. */
  readonly parts: (count: number) => Effect.Effect<void>
  readonly status: Effect.Effect<grpc.StatusObject>
}

/** What a row can do and wait for. */
export interface Stage {
  readonly link: GrpcMatrixLink
  readonly kind: GrpcKind
  readonly definition: GrpcMatrixDefinition
  readonly connect: Effect.Effect<GrpcConnection>
  readonly call: (
    connection: GrpcConnection,
    how?: { readonly options?: grpc.CallOptions; readonly silent?: boolean; readonly paused?: boolean }
  ) => Calling
  /** The handler waits for its gate. */
  readonly reached: Effect.Effect<void>
  /** The handler's writes have come to a standstill. */
  readonly blocked: Effect.Effect<void>
  readonly leaving: () => void
  /** Opens the gate of the handler. */
  readonly open: Effect.Effect<void>
  /** Starts the stop of the server; it is waited for at the end of the cell. */
  readonly stop: Effect.Effect<void>
  readonly log: (what: string) => void
}

export interface Row {
  readonly name: string
  readonly kinds: ReadonlyArray<GrpcKind>
  /** `eager`: the driver sends a call before it hears of its cancel. */
  readonly fate: (kind: GrpcKind, eager: boolean) => Fate
  /** The status of the client; `undefined` where it is dead. */
  readonly client: keyof typeof grpc.status | undefined
  /** Turns within which the server knows; `undefined`: however long the system takes. */
  readonly within: number | undefined
  readonly settings?: Partial<Pick<GrpcMatrixEndpoint, "timeLimit" | "drain" | "keepalive">>
  /** What the handler writes before it waits at its gate. */
  readonly writes?: "one" | "much"
  /** The columns that have no such thing. */
  readonly without?: ReadonlyArray<GrpcMatrixEndpoint["column"]>
  readonly leave: (stage: Stage) => Effect.Effect<Calling | undefined, never, Scope.Scope>
}

export const turns = (count: number): Effect.Effect<void> => repeat(Effect.yieldNow, count)

const both = ["unary", "serverStream"] as const
const all = ["unary", "clientStream", "serverStream", "bidi"] as const
const uploads = ["clientStream", "bidi"] as const
const leaves = (): Fate => ({ _tag: "leaves" })
const completes = (): Fate => ({ _tag: "completes" })
const stopped =
  (...reasons: ReadonlyArray<string>) =>
  (): Fate => ({ _tag: "stopped", reasons })

const called = (stage: Stage, how?: Parameters<Stage["call"]>[1]) =>
  Effect.map(stage.connect, (connection) => ({ connection, calling: stage.call(connection, how) }))

/** Calls, waits for the handler, and leaves. */
const leaving =
  (
    act: (connection: GrpcConnection, calling: Calling) => void,
    until: (stage: Stage, calling: Calling) => Effect.Effect<void> = ({ reached }) => reached,
    how?: Parameters<Stage["call"]>[1]
  ): Row["leave"] =>
  (stage) =>
    Effect.gen(function* () {
      const { calling, connection } = yield* called(stage, how)
      yield* until(stage, calling)
      stage.leaving()
      act(connection, calling)
      return calling
    })

const cancel = (_: GrpcConnection, calling: Calling): void => calling.cancel()

const gone = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    return undefined
  })

/** A client in a process of its own. */
const elsewhere =
  (signal: "SIGKILL" | "SIGSTOP"): Row["leave"] =>
  (stage) =>
    Effect.gen(function* () {
      const args = yield* stage.link.elsewhere(stage.definition[stage.kind].path, stage.kind)
      const child = yield* Effect.acquireRelease(
        Effect.sync(() => spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] })),
        (child) =>
          Effect.andThen(
            Effect.sync(() => child.kill("SIGKILL")),
            gone(child)
          )
      )
      child.stderr.on("data", (text: Buffer) => stage.log(`the client's process says: ${text}`))
      child.on("exit", (code, by) => stage.log(`the client's process ends with ${code ?? by}`))
      yield* stage.reached
      stage.leaving()
      child.kill(signal)
      return undefined
    })

// Four sockets lie between the two ends, in one process; measured are three turns.
const many = 50

export const rows: ReadonlyArray<Row> = [
  {
    name: "cancelled before its headers",
    kinds: ["unary", "bidi"],
    fate: (kind, eager) => (eager && kind === "bidi" ? { _tag: "leaves" } : { _tag: "never" }),
    client: "CANCELLED",
    within: many,
    leave: leaving(cancel, () => Effect.void)
  },
  {
    name: "cancelled before its first message",
    kinds: ["unary", ...uploads],
    // A method that takes one request has nothing to run for before it.
    fate: (kind) => (kind === "unary" ? { _tag: "never" } : { _tag: "leaves" }),
    client: "CANCELLED",
    within: many,
    leave: leaving(cancel, ({ kind, reached }) => (kind === "unary" ? turns(50) : reached), { silent: true })
  },
  {
    name: "cancelled while its handler runs",
    kinds: all,
    fate: leaves,
    client: "CANCELLED",
    within: many,
    leave: leaving(cancel)
  },
  {
    name: "cancelled after the last message, before the status",
    kinds: ["serverStream", "bidi"],
    fate: leaves,
    client: "CANCELLED",
    within: many,
    writes: "one",
    leave: leaving(cancel, ({ reached }, calling) => Effect.andThen(reached, calling.parts(1)))
  },
  {
    name: "cancelled after the answer",
    kinds: both,
    fate: completes,
    client: "OK",
    within: undefined,
    leave: (stage) =>
      Effect.gen(function* () {
        const { calling } = yield* called(stage)
        yield* stage.reached
        yield* stage.open
        yield* calling.status
        stage.leaving()
        calling.cancel()
        yield* turns(20)
        return calling
      })
  },
  {
    name: "half-closed: no more requests",
    kinds: uploads,
    fate: completes,
    client: "OK",
    within: undefined,
    leave: leaving((_, calling) => calling.end())
  },
  {
    name: "connection destroyed while its handler runs",
    kinds: all,
    fate: leaves,
    client: "UNAVAILABLE",
    within: many,
    leave: leaving(({ destroy }) => destroy())
  },
  {
    name: "slow reader cancelled, with writes pending",
    kinds: ["serverStream"],
    fate: leaves,
    client: "CANCELLED",
    within: many,
    writes: "much",
    leave: leaving(cancel, ({ blocked }) => blocked, { paused: true })
  },
  {
    name: "slow reader's connection destroyed, with writes pending",
    kinds: ["serverStream"],
    fate: leaves,
    client: "UNAVAILABLE",
    within: many,
    writes: "much",
    leave: leaving(
      ({ destroy }) => destroy(),
      ({ blocked }) => blocked,
      { paused: true }
    )
  },
  {
    name: "deadline of the client",
    kinds: both,
    // Whose timer comes first is chance: a client's cancel is all that the wire says, and the server has the deadline too.
    fate: stopped("Deadline", "ClientGone"),
    client: "DEADLINE_EXCEEDED",
    within: undefined,
    leave: (stage) =>
      Effect.gen(function* () {
        const connection = yield* stage.connect
        // Long enough for the handler to start on a machine that is busy.
        const options = { deadline: new Date(yield* Effect.map(now, (at) => at + 400)) }
        const calling = stage.call(connection, { options })
        yield* stage.reached
        stage.leaving()
        return calling
      })
  },
  {
    name: "time limit of the server",
    kinds: both,
    fate: stopped("LimitExceeded"),
    client: "RESOURCE_EXHAUSTED",
    within: undefined,
    settings: { timeLimit: Duration.millis(100) },
    without: ["stock"],
    leave: leaving(() => undefined)
  },
  {
    name: "server drains",
    kinds: both,
    fate: completes,
    client: "OK",
    within: undefined,
    settings: { drain: Duration.seconds(60) },
    leave: (stage) =>
      Effect.gen(function* () {
        const { calling } = yield* called(stage)
        yield* stage.reached
        stage.leaving()
        yield* stage.stop
        yield* turns(50)
        return calling
      })
  },
  {
    name: "server stops by force",
    kinds: all,
    fate: stopped("Shutdown"),
    client: "UNAVAILABLE",
    within: undefined,
    leave: (stage) =>
      Effect.gen(function* () {
        const { calling } = yield* called(stage)
        yield* stage.reached
        stage.leaving()
        yield* stage.stop
        return calling
      })
  },
  {
    name: "client killed (SIGKILL)",
    kinds: both,
    fate: leaves,
    client: undefined,
    within: undefined,
    leave: elsewhere("SIGKILL")
  },
  {
    name: "client frozen (SIGSTOP), found by keepalive",
    kinds: ["unary"],
    fate: leaves,
    client: undefined,
    within: undefined,
    // A client that is only slow, on a machine that is busy, has to have answered by then.
    settings: { keepalive: { time: Duration.millis(200), timeout: Duration.millis(1_200) } },
    leave: elsewhere("SIGSTOP")
  }
]

const now = /* @__PURE__ */ Effect.clockWith((clock) => clock.currentTimeMillis)
