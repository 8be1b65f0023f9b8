/**
 * Calls over any channel, and the calls that a server has.
 *
 * Invariants
 * 1. The outcome comes once, with the status of the call, after the last message.
 * 2. Each call has a connection of its own, which is closed when the outcome is there.
 * 3. The server has heard when its newest call was cancelled or is over; before it has one, it has not.
 */
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import type {
  GrpcAnswer,
  GrpcConnection,
  GrpcDriver,
  GrpcSubject,
  GrpcTarget,
  GrpcWay,
  Watch
} from "../grpc.ts"
import type { Remote, RemoteCall } from "./remote.ts"

type Method = grpc.MethodDefinition<unknown, unknown>
type Calling = { readonly cancel: () => void }
type Metadata = grpc.Metadata

interface Listener {
  readonly message: (message: unknown) => void
  readonly status: (code: number, details: string) => void
}

/** Starts a call of whatever shape. */
const begin = (
  client: grpc.Client,
  method: Method,
  messages: ReadonlyArray<unknown>,
  metadata: Metadata,
  options: grpc.CallOptions,
  tell: Listener
): Calling => {
  const { path, requestSerialize: to, responseDeserialize: from } = method
  const one = (error: grpc.ServiceError | null, value?: unknown): void => {
    if (error !== null) tell.status(error.code, error.details)
    else {
      tell.message(value)
      tell.status(grpc.status.OK, "")
    }
  }
  const many = (call: grpc.ClientReadableStream<unknown>): void => {
    // The status comes as an event of its own; the error says the same.
    call.on("error", () => undefined)
    call.on("data", tell.message)
    call.on("status", ({ code, details }: grpc.StatusObject) => tell.status(code, details))
  }
  const send = (call: grpc.ClientWritableStream<unknown>): void => {
    for (const message of messages) call.write(message)
    call.end()
  }
  if (method.requestStream && method.responseStream) {
    const call = client.makeBidiStreamRequest(path, to, from, metadata, options)
    many(call)
    send(call as unknown as grpc.ClientWritableStream<unknown>)
    return call
  }
  if (method.requestStream) {
    const call = client.makeClientStreamRequest(path, to, from, metadata, options, one)
    call.on("error", () => undefined)
    send(call)
    return call
  }
  if (method.responseStream) {
    const call = client.makeServerStreamRequest(path, to, from, messages[0], metadata, options)
    many(call)
    return call
  }
  return client.makeUnaryRequest(path, to, from, messages[0], metadata, options, one)
}

const callOf = (
  connection: GrpcConnection,
  subject: GrpcSubject<never, never>,
  heard: () => boolean
): RemoteCall<GrpcWay> => {
  const method = subject.service[subject.call.method] as Method
  const client = new grpc.Client("127.0.0.1", grpc.credentials.createInsecure(), {
    channelOverride: connection.channel as grpc.Channel
  })
  const messages: Array<unknown> = []
  let outcome: GrpcAnswer | undefined
  let told: ((answer: GrpcAnswer) => void) | undefined
  let arrival: (() => void) | undefined
  const calling = begin(
    client,
    method,
    subject.call.messages,
    subject.call.metadata ?? new grpc.Metadata(),
    subject.call.options ?? {},
    {
      message: (message) => {
        messages.push(message)
        arrival?.()
      },
      status: (code, details) => {
        if (outcome !== undefined) return
        outcome = { messages, code, details }
        connection.close()
        told?.(outcome)
      }
    }
  )
  return {
    outcome: Effect.callback<unknown>((resume) => {
      if (outcome !== undefined) {
        resume(Effect.succeed(outcome))
        return
      }
      told = (answer) => resume(Effect.succeed(answer))
      return Effect.sync(() => {
        calling.cancel()
        connection.close()
      })
    }),
    leave: (way) => {
      if (way === "cancel") calling.cancel()
      else connection.destroy()
    },
    heard,
    onArrival: (tell) => {
      arrival = tell
    }
  }
}

type AnyServerCall = grpc.ServerUnaryCall<unknown, unknown> & {
  on(event: "cancelled" | "finish" | "close", listener: () => void): unknown
}
type AnyHandler = (call: AnyServerCall, reply?: (...parts: ReadonlyArray<unknown>) => void) => void

/** Lets somebody know of each call, and of its end or cancellation. */
const observed = (
  implementation: grpc.UntypedServiceImplementation,
  onCall: () => () => void
): grpc.UntypedServiceImplementation =>
  Object.fromEntries(
    Object.entries(implementation).map(([name, handle]) => [
      name,
      ((call: AnyServerCall, reply) => {
        const over = onCall()
        for (const event of ["cancelled", "finish", "close"] as const) call.on(event, over)
        const handler = handle as unknown as AnyHandler
        if (reply === undefined) handler(call)
        else
          handler(call, (...parts) => {
            over()
            reply(...parts)
          })
      }) as AnyHandler as unknown as grpc.UntypedHandleCall
    ])
  )

/** The driver's server with the subject's handlers, as the sweep wants it. */
export const remoteOf = <E, R, E2, R2>(
  driver: GrpcDriver<E, R>,
  subject: GrpcSubject<E2, R2>,
  watch: Watch
): Effect.Effect<Remote<GrpcWay>, E | E2, R | R2 | Scope.Scope> =>
  Effect.gen(function* () {
    if (subject.service[subject.call.method] === undefined) {
      const known = Object.keys(subject.service).join(", ")
      return yield* Effect.die(
        new Error(`The service has no method ${subject.call.method}; call one of these: ${known}.`)
      )
    }
    const fibers = yield* FiberSet.make<unknown, unknown>()
    const run = yield* FiberSet.runtime(fibers)()
    const implementation = yield* subject.handlers({
      watch,
      run: (call, handler, options) => {
        const fiber = run(watch(handler))
        if ((options?.whenGone ?? "interrupt") === "interrupt") {
          if (call.cancelled) fiber.interruptUnsafe()
          else (call as unknown as AnyServerCall).on("cancelled", () => fiber.interruptUnsafe())
        }
      }
    })
    let heard = false
    const register = (target: GrpcTarget): void =>
      target.addService(
        subject.service,
        observed(implementation, () => {
          heard = false
          return () => {
            heard = true
          }
        })
      )
    const link = yield* driver.open(register)
    return {
      call: Effect.map(link.connect, (connection) => {
        heard = false
        return callOf(connection, subject as GrpcSubject<never, never>, () => heard)
      }),
      connections: link.connections,
      calm: link.calm
    }
  })
