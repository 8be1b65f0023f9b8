/** The calls as code with Effect makes them: `Client.make` over a channel, and scoped handlers by `Server.make`. */
import { Client, Server, type ServerCall } from "@curfew/grpc"
import { cancellable } from "@curfew/request"
import type { ChannelInterface, Metadata } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Driver } from "./driver.ts"
import {
  caller,
  checkHeaders,
  checkMessage,
  checkPayload,
  checkRequest,
  checkTotals,
  deadlineMillis,
  decodeOrder,
  definition,
  encodeOrder,
  encodeTotals,
  messagesOf,
  payload,
  region,
  requestId,
  requestKey,
  tenant,
  unaryBytes,
  version
} from "./wire.ts"

// ── handlers ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** Looks at what came beside the request, and sends the headers of the answer. */
const received = (call: ServerCall.ServerCall) =>
  Effect.suspend(() => {
    const id = checkRequest(
      call.metadata,
      Option.getOrElse(call.deadline, () => Number.POSITIVE_INFINITY)
    )
    return call.sendHeaders({ [region[0]]: region[1], [version[0]]: version[1], [requestKey]: id })
  })

const echo = cancellable((request: Buffer, call: ServerCall.ServerCall) => Effect.as(received(call), request))

/** For a tunnel's `Services.add`; needs an `Owner`. */
export const service = Effect.gen(function* () {
  const released = new Map<number, Deferred.Deferred<void>>()
  /** What a `Hold` and the call that waits for its release have in common: whoever comes first makes it. */
  const release = (request: Buffer): Deferred.Deferred<void> => {
    const number = request.readUInt32BE(0)
    const known = released.get(number) ?? Deferred.makeUnsafe<void>()
    released.set(number, known)
    return known
  }
  return yield* Server.make(definition, {
    Echo: echo,
    EchoWrapped: echo,
    Download: cancellable((request, call) => {
      const { count, everyMillis, size } = decodeOrder(request)
      const messages = Stream.map(Stream.range(0, count - 1), messagesOf(size))
      const paced =
        everyMillis === 0 ? messages : Stream.tap(messages, () => Effect.sleep(`${everyMillis} millis`))
      return Stream.unwrap(Effect.as(received(call), paced))
    }),
    Upload: cancellable((requests, call) =>
      Effect.gen(function* () {
        yield* received(call)
        let [messages, bytes] = [0, 0]
        yield* Stream.runForEach(requests, (message) =>
          Effect.sync(() => {
            checkMessage(message, message.length, messages++)
            bytes += message.length
          })
        )
        return encodeTotals(messages, bytes)
      })
    ),
    Hold: cancellable((request, call) =>
      Effect.gen(function* () {
        yield* Effect.addFinalizer(() => Deferred.succeed(release(request), undefined))
        yield* received(call)
        return yield* Effect.never
      })
    ),
    Released: cancellable((request, call) =>
      Effect.gen(function* () {
        yield* received(call)
        yield* Deferred.await(release(request))
        released.delete(request.readUInt32BE(0))
        return request
      })
    )
  })
})

// ── the client ───────────────────────────────────────────────────────────────────────────────────────────────────

export const effectDriver = (channel: ChannelInterface) =>
  Effect.gen(function* () {
    const client = yield* Client.make(
      definition,
      { channel },
      {
        metadata: { [tenant[0]]: tenant[1], [caller[0]]: caller[1] },
        timeout: deadlineMillis
      }
    )
    const fork = Effect.runForkWith(yield* Effect.context<never>())

    const run = <A>(effect: Effect.Effect<A, unknown>): Promise<A> =>
      new Promise((resolve, reject) => {
        fork(effect).addObserver((exit) =>
          Exit.isSuccess(exit) ? resolve(exit.value) : reject(new Error(`${exit}`))
        )
      })

    const call = (method: "Echo" | "EchoWrapped", number: number) => {
      const id = requestId(number)
      let headers: Metadata | undefined
      return Effect.map(
        client[method](payload(unaryBytes, number), {
          metadata: { [requestKey]: id },
          onHeaders: (got) => {
            headers = got
          }
        }),
        (answer) => {
          checkHeaders(headers, id)
          checkPayload(answer, unaryBytes, number)
        }
      )
    }

    const driver: Driver = {
      issue: (number, done) => {
        fork(call("Echo", number)).addObserver((exit) =>
          Exit.isSuccess(exit) ? done() : done(new Error(`${exit}`))
        )
      },
      loop: (wrapped, until) => {
        const method = wrapped ? "EchoWrapped" : "Echo"
        return run(
          Effect.gen(function* () {
            for (let number = until(); number !== undefined; number = until()) yield* call(method, number)
          })
        )
      },
      download: (order, number, onMessage = () => undefined) => {
        const id = requestId(number)
        let [count, cancelled] = [0, false]
        let headers: Metadata | undefined
        const messages = client.Download(encodeOrder(order), {
          metadata: { [requestKey]: id },
          onHeaders: (got) => {
            headers = got
          }
        })
        const fiber = fork(
          Stream.runForEach(messages, (message) =>
            Effect.sync(() => {
              checkMessage(message, order.size, count++)
              onMessage()
            })
          )
        )
        const done = new Promise<void>((resolve, reject) => {
          fiber.addObserver((exit) => {
            if (cancelled) return resolve()
            if (Exit.isFailure(exit)) return reject(new Error(`${exit}`))
            try {
              checkHeaders(headers, id)
              if (count !== order.count) throw new Error(`${count} messages came, of ${order.count}.`)
              resolve()
            } catch (problem) {
              reject(problem)
            }
          })
        })
        return {
          done,
          cancel: () => {
            cancelled = true
            fork(Fiber.interrupt(fiber))
            return done
          }
        }
      },
      upload: ({ count, size }, number) => {
        const id = requestId(number)
        let headers: Metadata | undefined
        return run(
          Effect.map(
            client.Upload(Stream.map(Stream.range(0, count - 1), messagesOf(size)), {
              metadata: { [requestKey]: id },
              onHeaders: (got) => {
                headers = got
              }
            }),
            (answer) => {
              checkHeaders(headers, id)
              checkTotals(answer, count, count * size)
            }
          )
        )
      },
      releases: (count) => run(cancelEach(count))
    }

    /** Begins a call, and waits until its handler has sent headers. */
    const begun = (method: "Hold" | "Released", number: number) =>
      Effect.gen(function* () {
        const begun = yield* Deferred.make<void, unknown>()
        const answer = client[method](payload(unaryBytes, number), {
          metadata: { [requestKey]: requestId(number) },
          onHeaders: () => Deferred.doneUnsafe(begun, Effect.void)
        })
        const fiber = yield* Effect.forkChild(Effect.tapError(answer, (error) => Deferred.fail(begun, error)))
        yield* Deferred.await(begun)
        return fiber
      })

    /**
     * How long it takes from the interrupt of a call until this end has heard that the handler's scope has been closed: the
     * handler has a finalizer that lets another call answer, which waits for that in the same tunnel.
     */
    const cancelEach = (count: number) =>
      Effect.gen(function* () {
        const releasedMicros: Array<number> = []
        const roundTripMicros: Array<number> = []
        for (let number = 1; number <= count; number++) {
          const released = yield* begun("Released", number)
          const held = yield* begun("Hold", number)
          const cancelled = performance.now()
          held.interruptUnsafe()
          checkPayload(yield* Fiber.join(released), unaryBytes, number)
          releasedMicros.push((performance.now() - cancelled) * 1_000)
          yield* Fiber.await(held)
          const began = performance.now()
          yield* call("Echo", number)
          roundTripMicros.push((performance.now() - began) * 1_000)
        }
        return { releasedMicros, roundTripMicros }
      })

    return driver
  })
