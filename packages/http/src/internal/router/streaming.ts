/**
 * A response stream that runs under the policy, apart from whoever writes it to the socket.
 *
 * Invariants
 * 1. The stream is pulled no further ahead than what waits to be written: one array of parts.
 * 2. When the writer is gone, for whatever reason, the parts go nowhere and nobody waits for the writer.
 * 3. The writer's end waits for the stream's, as the policy has it: its finalizers have run, within the budget.
 * 4. A stream that did not come to its own end breaks the response off: a part of an answer must not look whole.
 */
import { toCause } from "@curfew/reason"
import { type OnDisconnect, RequestContext } from "@curfew/request"
import * as Endpoint from "@curfew/request/Endpoint"
import type * as Arr from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as HttpBody from "effect/http/HttpBody"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { Deadline } from "./deadline.ts"
import { type Exchange, shutdown } from "./exchange.ts"

interface Streamed
  extends Pick<
    Endpoint.EndpointOptions<unknown, unknown>,
    "method" | "transport" | "peer" | "owner" | "classify"
  > {
  readonly context: RequestContext.RequestContext
  readonly policy: OnDisconnect | undefined
  readonly deadline: Deadline
}

type Parts = Arr.NonEmptyReadonlyArray<Uint8Array>

export const streaming = (
  response: HttpServerResponse.HttpServerResponse,
  exchange: Exchange,
  options: Streamed
): HttpServerResponse.HttpServerResponse => {
  const { body } = response
  if (body._tag !== "Stream") return response
  const handed = Stream.unwrap(
    Effect.gen(function* () {
      const parts = yield* Queue.bounded<Parts, unknown | Cause.Done>(1)
      yield* Effect.forkScoped(produce(body.stream, parts, exchange, options))
      // Registered last, so it comes first: the parts go nowhere from there on, and then the stream is waited for.
      yield* Effect.addFinalizer(() => Queue.shutdown(parts))
      return Stream.flattenArray(Stream.tap(Stream.fromQueue(parts), (some) => count(exchange, some)))
    })
  )
  const replaced = HttpServerResponse.setBody(
    response,
    HttpBody.stream(handed, body.contentType, body.contentLength)
  )
  // A body brings headers of its own; those that were set after it stand.
  return HttpServerResponse.setHeaders(replaced, response.headers)
}

const count = (exchange: Exchange, parts: Parts): Effect.Effect<void> =>
  Effect.sync(() => {
    for (const part of parts) exchange.part(part.byteLength)
  })

const produce = (
  stream: Stream.Stream<Uint8Array, unknown>,
  parts: Queue.Queue<Parts, unknown | Cause.Done>,
  exchange: Exchange,
  options: Streamed
): Effect.Effect<void> => {
  const { context, deadline, policy, ...call } = options
  const pumped = Stream.runForEachArray(stream, (some) => Queue.offer(parts, some))
  const running = Endpoint.run(pumped, {
    ...call,
    kind: "stream",
    policy,
    deadline: deadline.at,
    deadlineOrigin: deadline.origin
  }) as Effect.Effect<Endpoint.Answer<void, unknown>>
  const noted = Effect.onExit(running, (exit) =>
    Effect.sync(() => {
      // The writer has gone without its client: the server ends.
      if (exit._tag === "Failure" && !exchange.gone) exchange.cancelled(shutdown)
    })
  )
  return Effect.flatMap(RequestContext.provide(context)(noted), (told) => {
    switch (told._tag) {
      case "Value":
        exchange.streamEnded()
        return Effect.asVoid(Queue.end(parts))
      case "Failure":
        exchange.failed()
        return Effect.andThen(
          Effect.logError(`The response stream of ${exchange.route} failed.`, told.cause),
          Effect.asVoid(Queue.failCause(parts, told.cause))
        )
      case "Cancelled":
        exchange.cancelled(told.reason)
        return Effect.asVoid(Queue.failCause(parts, toCause(told.reason)))
      case "Dropped":
        exchange.left(told.reason)
        return Effect.asVoid(Queue.shutdown(parts))
    }
  })
}
