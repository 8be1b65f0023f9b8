/** Where calls are handled, a process of its own: over grpc-js itself, and in a tunnel with handlers of both kinds. */
import { GrpcServer, Server, ServerCalls } from "@curfew/grpc"
import { cancellable } from "@curfew/request"
import { Owner } from "@curfew/scope"
import { Services, TunnelService } from "@curfew/tunnel"
import {
  Server as GrpcJs,
  Metadata,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall
} from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { answer } from "../harness/child.ts"
import { definition, type Kind, plainKey } from "./service.ts"

const many = { maxStreams: 1 << 20, maxHandlers: 1 << 20, maxServiceHandlers: 1 << 20 } as const

const concurrency = { calls: 1 << 20, perMethod: 1 << 20, perPeer: 1 << 20 } as const

let open = 0
let begun = 0

const handlers = {
  Echo: (call: ServerDuplexStream<Buffer, Buffer>) => {
    open++
    call.once("close", () => open--)
    call.on("error", () => undefined)
    call.on("data", (message: Buffer) => call.write(message))
    call.on("end", () => call.end())
  },
  Wait: (call: ServerUnaryCall<Buffer, Buffer>) => {
    begun++
    open++
    call.once("cancelled", () => open--)
  }
}

/** What a tunnel gives a handler of messages, as far as an echo needs it. */
interface PlainCall {
  readonly read: () => void
  readonly sendMessage: (message: Buffer, callback: () => void) => void
  readonly sendStatus: (status: object) => void
}

const ignore = (): void => undefined

class PlainEcho {
  readonly #call: PlainCall

  constructor(call: PlainCall) {
    open++
    this.#call = call
    call.read()
  }

  onMessage(message: Buffer): void {
    this.#call.sendMessage(message, ignore)
    this.#call.read()
  }

  onEnd(): void {
    this.#call.sendStatus({ code: 0, details: "OK", metadata: new Metadata() })
  }

  onCancelled(): void {
    open--
  }
}

const plainHandlers = {
  ...handlers,
  Echo: Object.assign((call: ServerDuplexStream<Buffer, Buffer>) => handlers.Echo(call), {
    [plainKey]: (call: PlainCall) => new PlainEcho(call)
  })
}

const direct = (): Promise<number> => {
  const server = new GrpcJs()
  server.addService(definition, handlers)
  return new Promise((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error)
    )
  )
}

/** What a handler holds while it runs, in the scope of its call. */
const held = Effect.acquireRelease(
  Effect.sync(() => {
    open++
  }),
  () =>
    Effect.sync(() => {
      open--
    })
)

const tunnelled = (kind: Kind): Promise<number> => {
  const scope = Scope.makeUnsafe()
  const serving = Effect.gen(function* () {
    const server = yield* GrpcServer.make({ services: [], address: "127.0.0.1:0" })
    const calls = yield* ServerCalls.make({ limits: concurrency })
    const own = yield* Server.make(
      definition,
      {
        Echo: (requests) => Stream.unwrap(Effect.as(held, requests)),
        Wait: cancellable(() => {
          begun++
          return Effect.andThen(held, Effect.never)
        })
      },
      { calls }
    )
    const services =
      kind !== "effect"
        ? Services.empty.pipe(Services.add(definition, kind === "frames" ? plainHandlers : handlers))
        : Services.empty.pipe(Services.add(own.definition, own.implementation))
    yield* server.add(yield* TunnelService.make({ services, ...many }))
    return server.port
  })
  return Effect.runPromise(
    Effect.flatMap(Layer.buildWithScope(Owner.layer(), scope), (context) =>
      Scope.provide(Effect.provide(serving, context), scope)
    )
  )
}

answer({
  listen: (kind: Kind) => (kind === "direct" ? direct() : tunnelled(kind)),
  /** Handlers that have not ended, and how many there were. */
  handlers: () => ({ open, begun })
})
