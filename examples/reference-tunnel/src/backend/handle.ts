/**
 * Effects as grpc-js handlers.
 *
 * Invariants
 * 1. Each call is a task of the backend's task scope, and each task answers its call once, or not at all when the
 *    caller has left.
 * 2. `cancelled` counts only before the answer: grpc-js emits it after a success as well.
 * 3. A write is given up by interruption. grpc-js forgets the callback of a write that a cancel overtakes.
 */

import type { EventEmitter } from "node:events"
import { type CancelReason, describe, fromCause } from "@curfew/reason"
import { type Task, TaskScope } from "@curfew/scope"
import {
  status as Code,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData
} from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { labelHeader } from "../grpc/hashFinder.ts"
import { whyCancelled } from "../grpc/whyCancelled.ts"
import { listenAll } from "../process/listen.ts"
import { Process } from "../process/Process.ts"
import { CallTrace, inScope, writingPhase } from "./CallTrace.ts"
import { GrpcStatus } from "./GrpcStatus.ts"

/** A write that takes longer than this waits for its caller; the timeline says so. Milliseconds. */
const slowWrite = 250

type UnaryHandler<Req, Res> = (request: Req) => Effect.Effect<Res, GrpcStatus, CallTrace>
type StreamHandler<Req, Res> = (
  request: Req,
  write: (message: Res) => Effect.Effect<void>
) => Effect.Effect<void, GrpcStatus, CallTrace>

export interface Handlers {
  readonly calls: TaskScope.TaskScope
  readonly unary: <Req, Res>(
    name: string,
    handler: UnaryHandler<Req, Res>
  ) => (call: ServerUnaryCall<Req, Res>, callback: sendUnaryData<Res>) => void
  readonly serverStream: <Req, Res>(
    name: string,
    handler: StreamHandler<Req, Res>
  ) => (call: ServerWritableStream<Req, Res>) => void
}

/** Makes handlers whose calls end with the surrounding scope. */
export const makeHandlers: Effect.Effect<Handlers, never, Process | Scope.Scope> = Effect.gen(function* () {
  const calls = yield* TaskScope.make({ name: "calls" })
  const spawn = yield* TaskScope.makeRuntime<Process>(calls)
  const { meter, now, say, signal } = yield* Process

  type AnyCall = Pick<ServerUnaryCall<unknown, unknown>, "metadata" | "getDeadline"> & EventEmitter
  type Answer<A> = (exit: { readonly value: A } | { readonly status: GrpcStatus }) => void

  const start = <A>(
    name: string,
    call: AnyCall,
    body: (trace: CallTrace["Service"]) => Effect.Effect<A, GrpcStatus, CallTrace>,
    answer: Answer<A>
  ): void => {
    const label = String(call.metadata.get(labelHeader)[0] ?? "")
    const trace: CallTrace["Service"] = { label, phase: "before it began", waited: false, closed: [] }
    const began = now()
    let left: { readonly at: number; readonly reason: CancelReason } | undefined
    let task: Task<void> | undefined
    const forget = listenAll(meter, call, {
      cancelled: () => {
        left = { at: now(), reason: whyCancelled(call, now()) }
        say({ mark: "cancel", call: label, text: `cancelled ${trace.phase}: ${describe(left.reason)}` })
        task?.cancelUnsafe(left.reason)
      }
    })

    const settle = (exit: Exit.Exit<A, GrpcStatus>) => {
      forget()
      meter.count("handled")
      if (Exit.isSuccess(exit)) answer({ value: exit.value })
      const status = Exit.isSuccess(exit) || left !== undefined ? undefined : statusOf(exit.cause)
      if (status !== undefined) answer({ status })
      const reason = left?.reason ?? status?.reason
      if (reason === undefined) {
        const how = status === undefined ? "answers" : `answers ${Code[status.code]}`
        say({ mark: "end", call: label, text: `${name} ${how}`, took: now() - began })
      } else {
        meter.count(tallyOf(reason))
        if (trace.waited && trace.phase === writingPhase) meter.count("cancelled in a write")
        if (left === undefined)
          say({ mark: "cancel", call: label, text: `the server ends it: ${describe(reason)}` })
        const scopes = `closes its scopes: ${trace.closed.join(", then ")}`
        say({
          mark: "cleanup",
          call: label,
          text: scopes,
          took: left === undefined ? undefined : now() - left.at
        })
      }
      signal({ name: "handler ended", call: label })
    }

    say({ mark: "start", call: label, text: `${name} starts` })
    // Settled in a finalizer: code after the work would not run when it is cancelled.
    const life = inScope("call", body(trace)).pipe(
      Effect.provideService(CallTrace, trace),
      Effect.onExit((exit) => Effect.sync(() => settle(exit))),
      Effect.catch(() => Effect.void),
      Effect.asVoid
    )
    task = spawn(life, { name: `${name} ${label}` })
    if (task !== undefined) return
    forget()
    answer({ status: new GrpcStatus({ code: Code.UNAVAILABLE, details: "The server is shutting down." }) })
  }

  const writeTo =
    <Req, Res>(call: ServerWritableStream<Req, Res>, trace: CallTrace["Service"]) =>
    (message: Res): Effect.Effect<void> => {
      const written = Effect.callback<void>((resume) => {
        call.write(message, (error?: Error | null) => {
          // Without its reader the write ends by the interrupt that is on its way.
          if (error === undefined || error === null) resume(Effect.void)
        })
      })
      const waiting = Effect.andThen(
        Effect.sleep(slowWrite),
        Effect.suspend(() => {
          const { label } = trace
          trace.waited = true
          say({ mark: "note", call: label, text: "a write waits for the caller to read" })
          signal({ name: "write waits", call: label })
          return Effect.never
        })
      )
      return Effect.raceFirst(written, waiting)
    }

  return {
    calls,
    unary:
      <Req, Res>(name: string, handler: UnaryHandler<Req, Res>) =>
      (call: ServerUnaryCall<Req, Res>, callback: sendUnaryData<Res>) =>
        start(
          name,
          call,
          () => handler(call.request),
          (exit) => {
            if ("value" in exit) callback(null, exit.value)
            else callback(exit.status)
          }
        ),
    serverStream:
      <Req, Res>(name: string, handler: StreamHandler<Req, Res>) =>
      (call: ServerWritableStream<Req, Res>) =>
        start(
          name,
          call,
          (trace) => handler(call.request, writeTo(call, trace)),
          (exit) => {
            if ("value" in exit) call.end()
            else call.emit("error", exit.status)
          }
        )
  }
})

/** Under which name a cancelled call is counted. */
const tallyOf = (reason: CancelReason): string => {
  switch (reason._tag) {
    case "Deadline":
      return "cancelled by its deadline"
    case "LimitExceeded":
      return "cancelled by the server's limit"
    case "Shutdown":
      return "cancelled by a shutdown"
    default:
      return "cancelled by the client"
  }
}

/** What a caller is told of a failure: the handler's own status, the reason of a shutdown, or nothing but INTERNAL. */
const statusOf = (cause: Cause.Cause<GrpcStatus>): GrpcStatus => {
  const told = Cause.findError(cause)
  if (Result.isSuccess(told)) return told.success
  if (!Cause.hasInterruptsOnly(cause))
    return new GrpcStatus({ code: Code.INTERNAL, details: "The handler failed." })
  const reason = Option.getOrUndefined(fromCause(cause))
  return new GrpcStatus({
    code: Code.UNAVAILABLE,
    details: reason === undefined ? "The call was stopped." : `The call was stopped: ${describe(reason)}.`,
    ...(reason === undefined ? {} : { reason })
  })
}
