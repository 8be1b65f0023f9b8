/**
 * The calls as code without Effect makes them: grpc-js' stubs and handlers, the same over a channel of grpc-js and over a
 * tunnel's.
 */
import {
  type ClientReadableStream,
  type ClientWritableStream,
  Metadata,
  makeClientConstructor,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceError,
  type sendUnaryData
} from "@grpc/grpc-js"
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

const refused = (answer: sendUnaryData<Buffer>, error: unknown): void =>
  answer({ code: 9, details: error instanceof Error ? error.message : String(error) })

const deadlineOf = (call: { getDeadline(): Date | number }): number => {
  const deadline = call.getDeadline()
  return typeof deadline === "number" ? deadline : deadline.getTime()
}

const answerHeaders = (id: string): Metadata => {
  const headers = new Metadata()
  headers.set(region[0], region[1])
  headers.set(version[0], version[1])
  headers.set(requestKey, id)
  return headers
}

const echo = (call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>): void => {
  try {
    call.sendMetadata(answerHeaders(checkRequest(call.metadata, deadlineOf(call))))
    answer(null, call.request)
  } catch (error) {
    refused(answer, error)
  }
}

const download = (call: ServerWritableStream<Buffer, Buffer>): void => {
  const { count, everyMillis, size } = decodeOrder(call.request)
  call.sendMetadata(answerHeaders(checkRequest(call.metadata, deadlineOf(call))))
  const message = messagesOf(size)
  let index = 0
  if (everyMillis > 0) {
    const timer = setInterval(() => {
      call.write(message(index++))
      if (index < count) return
      clearInterval(timer)
      call.end()
    }, everyMillis)
    call.on("cancelled", () => clearInterval(timer))
    return
  }
  const pump = (): void => {
    while (index < count && !call.cancelled) if (!call.write(message(index++))) return
    if (index >= count) call.end()
  }
  call.on("drain", pump)
  pump()
}

const upload = (call: ServerReadableStream<Buffer, Buffer>, answer: sendUnaryData<Buffer>): void => {
  let [messages, bytes] = [0, 0]
  let problem: unknown
  try {
    call.sendMetadata(answerHeaders(checkRequest(call.metadata, deadlineOf(call))))
  } catch (error) {
    refused(answer, error)
    return
  }
  call.on("data", (message: Buffer) => {
    try {
      checkMessage(message, message.length, messages++)
      bytes += message.length
    } catch (error) {
      problem ??= error
    }
  })
  call.on("end", () =>
    problem === undefined ? answer(null, encodeTotals(messages, bytes)) : refused(answer, problem)
  )
}

const nobody = (_: unknown, answer: sendUnaryData<Buffer>): void =>
  refused(answer, "Only Effect handlers have scopes that release.")

/** For `grpc.Server.addService` and for a tunnel's `Services.add`. */
export const handlers = {
  Echo: echo,
  EchoWrapped: echo,
  Download: download,
  Upload: upload,
  Hold: nobody,
  Released: nobody
}

// ── stubs ────────────────────────────────────────────────────────────────────────────────────────────────────────

type Answered = (error: ServiceError | null, answer?: Buffer) => void
interface Options {
  readonly deadline: number
}

interface Stub {
  Echo(request: Buffer, metadata: Metadata, options: Options, answered: Answered): NodeJS.EventEmitter
  EchoWrapped(request: Buffer, metadata: Metadata, options: Options, answered: Answered): NodeJS.EventEmitter
  Download(request: Buffer, metadata: Metadata, options: Options): ClientReadableStream<Buffer>
  Upload(metadata: Metadata, options: Options, answered: Answered): ClientWritableStream<Buffer>
}

export const Stub = makeClientConstructor(definition, "Bench")

const metadataOf = (id: string): Metadata => {
  const metadata = new Metadata()
  metadata.set(tenant[0], tenant[1])
  metadata.set(caller[0], caller[1])
  metadata.set(requestKey, id)
  return metadata
}

const within = (): Options => ({ deadline: Date.now() + deadlineMillis })

/** The calls of a stub, whatever channel it is over. */
export const stubDriver = (made: InstanceType<typeof Stub>): Driver => {
  const stub = made as unknown as Stub

  const issue = (method: "Echo" | "EchoWrapped", number: number, done: (error?: unknown) => void): void => {
    const id = requestId(number)
    let headers: Metadata | undefined
    stub[method](payload(unaryBytes, number), metadataOf(id), within(), (error, answer) => {
      if (error !== null) return done(error)
      try {
        checkHeaders(headers, id)
        checkPayload(answer, unaryBytes, number)
      } catch (problem) {
        return done(problem)
      }
      done()
    }).on("metadata", (received: Metadata) => {
      headers = received
    })
  }

  const loop = (method: "Echo" | "EchoWrapped", until: () => number | undefined): Promise<void> =>
    new Promise((resolve, reject) => {
      const next = (error?: unknown): void => {
        if (error !== undefined) {
          reject(error)
          return
        }
        const number = until()
        if (number === undefined) resolve()
        else issue(method, number, next)
      }
      next()
    })

  return {
    issue: (number, done) => issue("Echo", number, done),
    loop: (wrapped, until) => loop(wrapped ? "EchoWrapped" : "Echo", until),
    download: (order, number, onMessage = () => undefined) => {
      const id = requestId(number)
      const call = stub.Download(encodeOrder(order), metadataOf(id), within())
      let [received, cancelled] = [0, false]
      let headers: Metadata | undefined
      call.on("metadata", (got: Metadata) => {
        headers = got
      })
      const done = new Promise<void>((resolve, reject) => {
        call.on("data", (message: Buffer) => {
          try {
            checkMessage(message, order.size, received++)
            onMessage()
          } catch (problem) {
            reject(problem)
          }
        })
        call.on("error", (error) => (cancelled ? resolve() : reject(error)))
        call.on("end", () => {
          try {
            checkHeaders(headers, id)
            if (!cancelled && received !== order.count)
              throw new Error(`${received} messages came, of ${order.count}.`)
            resolve()
          } catch (problem) {
            reject(problem)
          }
        })
      })
      return {
        done,
        cancel: async () => {
          cancelled = true
          call.cancel()
          await done
        }
      }
    },
    upload: ({ count, size }, number) =>
      new Promise((resolve, reject) => {
        const id = requestId(number)
        const message = messagesOf(size)
        let headers: Metadata | undefined
        const call = stub.Upload(metadataOf(id), within(), (error, answer) => {
          if (error !== null || answer === undefined) return reject(error)
          try {
            checkHeaders(headers, id)
            checkTotals(answer, count, count * size)
            resolve()
          } catch (problem) {
            reject(problem)
          }
        })
        call.on("metadata", (got: Metadata) => {
          headers = got
        })
        let index = 0
        const pump = (): void => {
          while (index < count) if (!call.write(message(index++))) return
          call.removeListener("drain", pump)
          call.end()
        }
        call.on("drain", pump)
        pump()
      })
  }
}
