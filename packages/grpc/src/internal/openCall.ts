/**
 * A call as a resource of the surrounding `Scope`.
 *
 * Invariants
 * 1. The finalizers run in this order: cancel what has not ended, interrupt the request stream and wait for it, wait
 *    for the status, end the span. The request stream hears of the end of its call before that, from the status.
 * 2. The call is made after its finalizers are in place, in one operation.
 * 3. The request stream is a task under the caller's cell: a cancel from above reaches it in the same turn. What it
 *    fails with is the call's outcome, or reaches `OnUnhandled`, exactly once.
 */
import { forkCellUnsafe, startsApartUnsafe } from "@curfew/reason/CancelCell"
import { TaskScope } from "@curfew/scope"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { CallOptions, ClientOptions } from "../Client.ts"
import { callDeadline } from "./callDeadline.ts"
import { callMetadata } from "./callMetadata.ts"
import { ClientCall, type Outgoing } from "./clientCall.ts"
import { spanOf, Telemetry } from "./clientTelemetry.ts"

/** One message, or a stream of them. */
export type Requests<Request, E, R> =
  | { readonly message: Request }
  | { readonly stream: Stream.Stream<Request, E, R> }

export type Settings = Pick<Outgoing, "method" | "channel" | "interceptors"> & {
  readonly defaults: ClientOptions
}

export const openCall = <Request, Response, E, R>(
  { channel, defaults, interceptors, method }: Settings,
  requests: Requests<Request, E, R>,
  options: CallOptions
): Effect.Effect<ClientCall<Request, Response, E>, never, R | Scope.Scope> =>
  Effect.gen(function* () {
    const { attributes, name } = spanOf(method.path)
    const span = yield* Effect.makeSpanScoped(name, { kind: "client", attributes })
    const outgoing: Outgoing = {
      method,
      channel,
      interceptors: options.interceptors ?? interceptors,
      credentials: options.credentials ?? defaults.credentials,
      onHeaders: options.onHeaders,
      onTrailers: options.onTrailers
    }
    const call = yield* Effect.acquireRelease(
      Effect.withFiberSucceed(
        (fiber) =>
          new ClientCall<Request, Response, E>(outgoing, new Telemetry(method.path, span, fiber.context))
      ),
      (opened) => opened.end
    )
    const tasks = "stream" in requests ? yield* requestTasks(call, name) : undefined
    yield* Effect.addFinalizer(() => call.leave)
    yield* Effect.withFiberSucceed((fiber) => {
      const limits = {
        timeout: options.timeout ?? (options.deadline === undefined ? defaults.timeout : undefined),
        deadline: options.deadline
      }
      call.start(
        fiber,
        callDeadline(fiber, limits, method.path),
        callMetadata(
          [defaults.metadata, options.metadata],
          span,
          options.waitForReady ?? defaults.waitForReady,
          method.path
        ),
        "message" in requests ? requests : undefined
      )
    })
    // A call that was refused takes no requests; one that has ended meanwhile refuses the task.
    if (tasks !== undefined && "stream" in requests && !call.over) {
      yield* Effect.ignore(tasks.spawn(pump(call, requests.stream), { name: `requests of ${name}` }))
    }
    return call
  })

const requestTasks = <Request, Response, E>(
  call: ClientCall<Request, Response, E>,
  name: string
): Effect.Effect<TaskScope.TaskScope, never, Scope.Scope> =>
  Effect.withFiber((fiber) => {
    const masked = startsApartUnsafe(fiber)
    return TaskScope.makeIn(() => {
      call.requests = forkCellUnsafe(fiber, "tasks", name, masked)
      return call.requests
    })
  })

const pump = <Request, Response, E, R>(
  call: ClientCall<Request, Response, E>,
  stream: Stream.Stream<Request, E, R>
): Effect.Effect<void, E, R> =>
  // The failure is told in the mask: the call that it ends interrupts this very task.
  Effect.uninterruptibleMask((restore) =>
    restore(Effect.andThen(Stream.runForEach(stream, call.send), call.halfClose)).pipe(
      Effect.catchCause((cause) => (call.requestsFailed(cause) ? Effect.void : Effect.failCause(cause)))
    )
  )
