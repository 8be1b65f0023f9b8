/** A process that serves the service with one of the stacks. */
import { createServer as createHttp2Server } from "node:http2"
import type { AddressInfo } from "node:net"
import { connectNodeAdapter } from "@connectrpc/connect-node"
import { GrpcServer, Server, type ServerCall } from "@curfew/grpc"
import { Owner } from "@curfew/scope"
import * as grpc from "@grpc/grpc-js"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createServer as createNiceServer } from "nice-grpc"
import { answer } from "../harness/child.ts"
import { echo } from "./connectService.ts"
import {
  checkEncoded,
  checkHeaders,
  checkValue,
  definition,
  type Stack,
  streamed,
  timeout
} from "./service.ts"

/** Whoever serves looks at the metadata and the deadline of each call. */
const look = (metadata: { get(key: string): unknown }, timeLeft: number): void => {
  const tenant = metadata.get("x-tenant")
  checkHeaders(Array.isArray(tenant) ? tenant[0] : tenant, timeLeft)
}

const left = ({ deadline }: ServerCall.ServerCall): number =>
  deadline._tag === "Some" ? deadline.value - Date.now() : 0

const curfew = async (): Promise<number> => {
  const services = Server.make(definition, {
    unary: (request, call) =>
      Effect.sync(() => {
        look(call.metadata, left(call))
        checkEncoded(request)
        return request
      }),
    many: (request, call) =>
      Stream.suspend(() => {
        look(call.metadata, left(call))
        return Stream.map(Stream.range(1, streamed), () => request)
      }),
    talk: (requests, call) =>
      Stream.suspend(() => {
        look(call.metadata, left(call))
        return requests
      })
  })
  const layer = Layer.provideMerge(
    GrpcServer.layer({ address: "127.0.0.1:0", services: [services], health: false }),
    Owner.layer()
  )
  // The scope ends with the process, which its parent ends.
  const context = await Effect.runPromise(Layer.buildWithScope(layer, Scope.makeUnsafe()))
  return Context.get(context, GrpcServer).port
}

const grpcJs = (): Promise<number> => {
  const server = new grpc.Server()
  server.addService(definition, {
    unary: (call: grpc.ServerUnaryCall<Buffer, Buffer>, reply: grpc.sendUnaryData<Buffer>) => {
      look(call.metadata, Number(call.getDeadline()) - Date.now())
      checkEncoded(call.request)
      reply(null, call.request)
    },
    many: (call: grpc.ServerWritableStream<Buffer, Buffer>) => {
      look(call.metadata, Number(call.getDeadline()) - Date.now())
      let left = streamed
      const write = (): void => {
        while (left > 0) {
          left--
          if (!call.write(call.request)) {
            call.once("drain", write)
            return
          }
        }
        call.end()
      }
      write()
    },
    talk: (call: grpc.ServerDuplexStream<Buffer, Buffer>) => {
      look(call.metadata, Number(call.getDeadline()) - Date.now())
      call.on("data", (request: Buffer) => {
        if (!call.write(request)) {
          call.pause()
          call.once("drain", () => call.resume())
        }
      })
      call.on("end", () => call.end())
    }
  })
  return new Promise((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error)
    )
  )
}

const nice = (): Promise<number> => {
  const server = createNiceServer()
  server.add(
    definition as never,
    {
      unary: async (request: Buffer, context: { metadata: { get(key: string): unknown } }) => {
        // It tells a handler of no deadline, and ends the signal of its context when it passes.
        look(context.metadata, timeout)
        checkEncoded(request)
        return request
      },
      many: async function* (request: Buffer, context: { metadata: { get(key: string): unknown } }) {
        look(context.metadata, timeout)
        for (let i = 0; i < streamed; i++) yield request
      },
      talk: async function* (
        requests: AsyncIterable<Buffer>,
        context: { metadata: { get(key: string): unknown } }
      ) {
        look(context.metadata, timeout)
        yield* requests
      }
    } as never
  )
  return server.listen("127.0.0.1:0")
}

const connect = (): Promise<number> => {
  const adapter = connectNodeAdapter({
    connect: false,
    grpcWeb: false,
    routes: (router) =>
      router.service(
        echo as never,
        {
          unary: (
            request: { value: Uint8Array },
            context: { requestHeader: Headers; timeoutMs(): number }
          ) => {
            look(context.requestHeader, context.timeoutMs())
            checkValue(request.value)
            return request
          },
          many: async function* (request: object, context: { requestHeader: Headers; timeoutMs(): number }) {
            look(context.requestHeader, context.timeoutMs())
            for (let i = 0; i < streamed; i++) yield request
          },
          talk: async function* (
            requests: AsyncIterable<object>,
            context: { requestHeader: Headers; timeoutMs(): number }
          ) {
            look(context.requestHeader, context.timeoutMs())
            yield* requests
          }
        } as never
      )
  })
  const server = createHttp2Server(adapter as never)
  return new Promise((resolve) =>
    server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port))
  )
}

const serve: Readonly<Record<Stack, () => Promise<number>>> = {
  curfew,
  "grpc-js": grpcJs,
  "nice-grpc": nice,
  "connect-node": connect
}

answer({ listen: (stack: Stack) => serve[stack]() })
