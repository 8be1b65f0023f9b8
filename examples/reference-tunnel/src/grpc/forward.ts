/**
 * Passing calls on, whatever their kind: each call that comes in becomes a call that goes out.
 *
 * Invariants
 * 1. Messages stay bytes. Every method is registered and called as a bidi stream, which serves all four kinds on
 *    the wire.
 * 2. The call that goes out belongs to the scope of the one that came in: when that is cancelled, it is, and nothing
 *    of either is left when the task has ended.
 * 3. Who is slow slows down the other end: a full buffer on one side pauses the other.
 * 4. A caller that cancels in the middle of its requests looks to grpc-js as if it had sent them all; that is passed
 *    on as it is seen, and the cancel after it.
 * 5. The caller gets the status and the trailers of the call that went out, after its last message. Only a call that
 *    ends because this process does is answered by this process: UNAVAILABLE.
 */

import { onCancel } from "@curfew/guard"
import { currentReason, describe } from "@curfew/reason"
import { type Task, TaskScope } from "@curfew/scope"
import {
  type Client,
  type ClientDuplexStream,
  status as Code,
  Metadata,
  type ServerDuplexStream,
  type ServiceDefinition,
  type StatusObject,
  type UntypedServiceImplementation
} from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { listenAll } from "../process/listen.ts"
import { Process } from "../process/Process.ts"
import { labelHeader } from "./hashFinder.ts"
import { whyCancelled } from "./whyCancelled.ts"

type Incoming = ServerDuplexStream<Buffer, Buffer>
type Outgoing = ClientDuplexStream<Buffer, Buffer>

export interface Forwarding {
  readonly definition: ServiceDefinition
  readonly implementation: UntypedServiceImplementation
  /** The calls that are being passed on. */
  readonly calls: TaskScope.TaskScope
}

/** How long a call that is stopped may take to be told. */
const patience = "250 millis"

const bytes = (buffer: Buffer): Buffer => buffer

/** A service that passes every call of the definition on to a client. */
export const forward = (
  service: ServiceDefinition,
  to: Client,
  options: {
    /** Names a call that its caller has not named. */
    readonly name?: () => string
    /** Called synchronously when a call has come in, with its name. */
    readonly onArrival?: (label: string) => void
    /** Called synchronously before a call goes out; what it returns, when that call is over. */
    readonly onCall?: (label: string) => () => void
    /** Says a status in this end's own words. */
    readonly rephrase?: (status: StatusObject) => StatusObject
  } = {}
): Effect.Effect<Forwarding, never, Process | Scope.Scope> =>
  Effect.gen(function* () {
    const { meter, now, stop } = yield* Process
    const calls = yield* TaskScope.make({ name: "forwarded calls" })
    const spawn = yield* TaskScope.makeRuntime<Process>(calls)
    const rephrase = options.rephrase ?? ((status: StatusObject) => status)
    // A caller that has cancelled gets no answer. For any other it is this process that ends the call.
    const inOwnWords = (status: StatusObject): StatusObject =>
      status.code === Code.CANCELLED && stop.begun ? { ...status, ...shuttingDown } : rephrase(status)

    const handler = (path: string) => (incoming: Incoming) => {
      const headers = passedOn(incoming.metadata)
      const label = String(headers.get(labelHeader)[0] ?? options.name?.() ?? "")
      headers.set(labelHeader, label)
      options.onArrival?.(label)
      let over: (() => void) | undefined
      const dial = Effect.sync(() => {
        over = options.onCall?.(label)
        return to.makeBidiStreamRequest(path, bytes, bytes, headers, {
          deadline: incoming.getDeadline()
        })
      })
      const life = Effect.scoped(exchange(incoming, dial)).pipe(
        Effect.flatMap((status) => answer(incoming, inOwnWords(status))),
        (work) =>
          onCancel(work, (reason) =>
            reason._tag === "Shutdown" ? refuse(incoming, describe(reason)) : Effect.void
          ),
        // An answered call says `cancelled` too, so nobody listens any more when it does.
        Effect.ensuring(
          Effect.sync(() => {
            forget()
            over?.()
          })
        )
      )
      let task: Task<void> | undefined
      const forget = listenAll(meter, incoming, {
        cancelled: () => task?.cancelUnsafe(whyCancelled(incoming, now()))
      })
      task = spawn(life, { name: label })
      if (task !== undefined) return
      forget()
      incoming.emit("error", shuttingDown)
    }

    const methods = Object.entries(service).map(([name, method]) => [name, method.path] as const)
    return {
      calls,
      definition: Object.fromEntries(methods.map(([name, path]) => [name, bidi(path)])),
      implementation: Object.fromEntries(methods.map(([name, path]) => [name, handler(path)]))
    }
  })

const bidi = (path: string) => ({
  path,
  requestStream: true,
  responseStream: true,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes
})

/** Opens the outgoing call, carries messages both ways, and gives the outgoing call's status after the last one. */
const exchange = (
  incoming: Incoming,
  dial: Effect.Effect<Outgoing>
): Effect.Effect<StatusObject, never, Process | Scope.Scope> =>
  Effect.gen(function* () {
    const { meter } = yield* Process
    let over: StatusObject | undefined
    const outgoing = yield* Effect.acquireRelease(dial, (call) =>
      Effect.map(currentReason, (reason) => {
        if (over !== undefined) return
        // `cancel` without words would tell the next end no more than that this one cancelled.
        const why = Option.match(reason, { onNone: () => "The call is over", onSome: describe })
        call.call?.cancelWithStatus(Code.CANCELLED, why)
      })
    )
    // A cancelled grpc-js stream emits `error`, also after this exchange; without a listener that ends the process.
    outgoing.on("error", () => undefined)
    return yield* Effect.callback<StatusObject>((resume) => {
      let read = false
      // The status may come while messages still wait in the buffer of a paused stream; `end` comes after them.
      const settle = () => {
        if (over === undefined || !read) return
        forgetBoth()
        resume(Effect.succeed(over))
      }
      const forgetOutgoing = listenAll(meter, outgoing, {
        metadata: (headers: Metadata) => incoming.sendMetadata(passedOn(headers)),
        data: (message: Buffer) => {
          if (!incoming.write(message)) outgoing.pause()
        },
        drain: () => incoming.resume(),
        end: () => {
          read = true
          settle()
        },
        status: (status: StatusObject) => {
          over = status
          settle()
        }
      })
      const forgetIncoming = listenAll(meter, incoming, {
        data: (message: Buffer) => {
          if (!outgoing.write(message)) incoming.pause()
        },
        drain: () => outgoing.resume(),
        end: () => outgoing.end()
      })
      const forgetBoth = () => {
        forgetOutgoing()
        forgetIncoming()
      }
      return Effect.sync(forgetBoth)
    })
  })

/** Answers, and waits until the answer has been written: a slow caller is still a caller. */
const answer = (incoming: Incoming, status: StatusObject): Effect.Effect<void, never, Process> =>
  Effect.flatMap(Process, ({ meter }) =>
    Effect.callback<void>((resume) => {
      const forget = listenAll(meter, incoming, {
        finish: () => {
          forget()
          resume(Effect.void)
        }
      })
      const metadata = passedOn(status.metadata)
      if (status.code === Code.OK) incoming.end(metadata)
      else incoming.emit("error", { code: status.code, details: status.details, metadata })
      return Effect.sync(forget)
    })
  )

const shuttingDown = { code: Code.UNAVAILABLE, details: "The server is shutting down" } as const

/** Answers a call that was stopped here. A caller that reads nothing is not waited for: it holds up the shutdown. */
const refuse = (incoming: Incoming, details: string): Effect.Effect<void, never, Process> =>
  Effect.asVoid(
    Effect.timeoutOption(
      answer(incoming, { code: Code.UNAVAILABLE, details, metadata: new Metadata() }),
      patience
    )
  )

/** What each hop sets for itself. */
const ownHeaders = /^(grpc-|:|content-type$|date$|host$|te$|user-agent$)/

/** Metadata without what belongs to one hop. */
const passedOn = (metadata: Metadata): Metadata => {
  const copy = new Metadata()
  for (const key of Object.keys(metadata.getMap())) {
    if (ownHeaders.test(key)) continue
    for (const value of metadata.get(key)) copy.add(key, value)
  }
  return copy
}
