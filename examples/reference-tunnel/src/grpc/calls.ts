/**
 * Calls of a stock grpc-js stub as Effects: interrupting one cancels the call and waits for its status.
 */
import {
  type ClientReadableStream,
  type ClientUnaryCall,
  status as Code,
  Metadata,
  type ServiceClientConstructor,
  type ServiceError,
  type StatusObject
} from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { listenAll } from "../process/listen.ts"
import { Process } from "../process/Process.ts"
import {
  type FindRangeRequest,
  type FindRangeResponse,
  type FindRequest,
  type FindResponse,
  labelHeader
} from "./hashFinder.ts"

/** A call that ended with a status other than OK. */
export class CallFailed extends Data.TaggedError("CallFailed")<{
  readonly code: number
  readonly details: string
}> {
  override get message(): string {
    return this.details
  }
}

/** grpc-js adds to a deadline's sentence where the time went. */
const failed = ({ code, details }: Pick<StatusObject, "code" | "details">): CallFailed =>
  new CallFailed({ code, details: code === Code.DEADLINE_EXCEEDED ? details.replace(/,.*$/s, "") : details })

export interface CallOptions {
  /** The name of the call in the timeline. Without one the gateway gives it one. */
  readonly label?: string | undefined
  /** Milliseconds until its deadline. */
  readonly timeout?: number | undefined
}

export type Stub = InstanceType<ServiceClientConstructor>

const headersOf = ({ label }: CallOptions): Metadata => {
  const metadata = new Metadata()
  if (label !== undefined) metadata.set(labelHeader, label)
  return metadata
}

const deadlineOf = ({ timeout }: CallOptions, now: number) =>
  timeout === undefined ? {} : { deadline: Math.round(now + timeout) }

type Unary = (
  request: FindRequest,
  metadata: Metadata,
  options: object,
  callback: (error: ServiceError | null, response: FindResponse) => void
) => ClientUnaryCall

/** One answer for one request. */
export const find = (
  stub: Stub,
  request: FindRequest,
  options: CallOptions
): Effect.Effect<FindResponse, CallFailed, Process> =>
  Effect.flatMap(Process, ({ now }) =>
    Effect.callback((resume) => {
      const start = (stub["Find"] as Unary).bind(stub)
      const call = start(request, headersOf(options), deadlineOf(options, now()), (error, response) =>
        resume(error === null ? Effect.succeed(response) : Effect.fail(failed(error)))
      )
      return Effect.sync(() => call.cancel())
    })
  )

/** A stream that is read page by page. */
export interface Range {
  /** The next page; fails with the call's status when there is none because the call ended badly. */
  readonly next: Effect.Effect<FindRangeResponse | undefined, CallFailed>
  /** Reads no further. What is on the way fills the buffers of everybody on the path. */
  readonly pause: Effect.Effect<void>
}

type ServerStream = (
  request: FindRangeRequest,
  metadata: Metadata,
  options: object
) => ClientReadableStream<FindRangeResponse>

/** Opens a stream; it is cancelled when the scope closes before it has ended, and its status is awaited. */
export const findRange = (
  stub: Stub,
  request: FindRangeRequest,
  options: CallOptions
): Effect.Effect<Range, never, Process | Scope.Scope> =>
  Effect.gen(function* () {
    const { meter, now } = yield* Process
    // The end goes through the queue too: on a way of its own it could overtake the last pages.
    const pages = yield* Queue.unbounded<FindRangeResponse, CallFailed | Cause.Done>()
    const over = yield* Deferred.make<StatusObject>()
    const { opened: call } = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const start = (stub["FindRange"] as ServerStream).bind(stub)
        const opened = start(request, headersOf(options), deadlineOf(options, now()))
        // The status says what the error says; without a listener the error would end the process.
        opened.on("error", () => undefined)
        let read = false
        let status: StatusObject | undefined
        // Pages may still be on their way to the listener when the status is there; `end` comes after them.
        const settle = () => {
          if (!read || status === undefined) return
          if (status.code === Code.OK) Queue.endUnsafe(pages)
          else Queue.failCauseUnsafe(pages, Cause.fail(failed(status)))
        }
        const forget = listenAll(meter, opened, {
          data: (page: FindRangeResponse) => Queue.offerUnsafe(pages, page),
          end: () => {
            read = true
            settle()
          },
          status: (told: StatusObject) => {
            status = told
            Deferred.doneUnsafe(over, Effect.succeed(told))
            settle()
          }
        })
        return { opened, forget }
      }),
      ({ forget, opened }) => {
        // Without an effect after the call has ended.
        opened.cancel()
        return Effect.ensuring(Deferred.await(over), Effect.sync(forget))
      }
    )
    return {
      next: Effect.catch(Queue.take(pages), (error) =>
        Cause.isDone(error) ? Effect.succeed(undefined) : Effect.fail(error)
      ),
      pause: Effect.sync(() => {
        call.pause()
      })
    }
  })
