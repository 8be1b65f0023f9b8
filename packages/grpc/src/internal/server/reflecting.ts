/**
 * The streams of `@grpc/reflection` as handlers of ours.
 *
 * Invariants
 * 1. Its handler answers each request within the call that hands the request over; one that does not is a defect.
 * 2. It never sees a transport: how fast answers go out, and when the call ends, is the edge's business.
 */
import { EventEmitter } from "node:events"
import { cancellable } from "@curfew/request"
import type { Owner } from "@curfew/scope"
import type { ServiceDefinition, UntypedServiceImplementation } from "@grpc/grpc-js"
import type * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { RequestStream, Service } from "../../Server.ts"
import { makeService } from "./service.ts"

export const reflecting = (
  definition: ServiceDefinition,
  implementation: UntypedServiceImplementation
): Effect.Effect<Service, never, Owner> => {
  const handlers = Object.fromEntries(
    Object.entries(implementation).map(([name, handler]) => [
      name,
      cancellable((requests: RequestStream<unknown>) =>
        Stream.suspend(() => {
          const answer = answering(handler as never)
          return Stream.map(requests, answer)
        })
      )
    ])
  )
  return makeService(definition, handlers as never, {})
}

const answering = (handler: (stream: EventEmitter) => void): ((request: unknown) => unknown) => {
  const answers: Array<unknown> = []
  const stream = Object.assign(new EventEmitter(), {
    write: (answer: unknown) => answers.push(answer),
    end: () => undefined
  })
  handler(stream)
  return (request) => {
    stream.emit("data", request)
    const [answer] = answers.splice(0)
    if (answer === undefined)
      throw new Error("The reflection service gave no answer; use another version of it.")
    return answer
  }
}
