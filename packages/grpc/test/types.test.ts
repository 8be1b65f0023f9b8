/** The client is typed by what each generator writes. */

import * as grpc from "@grpc/grpc-js"
import type { MethodDefinition as LoadedMethod } from "@grpc/proto-loader"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { describe, expectTypeOf, test } from "vitest"
import { Client, type GrpcError } from "../src/index.ts"

interface Order {
  id: string
}
interface Receipt {
  total: number
}
type Unary = (request: Order, options?: Client.CallOptions) => Effect.Effect<Receipt, GrpcError>
type ServerStream = (request: Order, options?: Client.CallOptions) => Stream.Stream<Receipt, GrpcError>
type Upload = <E = never, R = never>(
  requests: Stream.Stream<Order, E, R>,
  options?: Client.CallOptions
) => Effect.Effect<Receipt, GrpcError | E, R>
type Chat = <E = never, R = never>(
  requests: Stream.Stream<Order, E, R>,
  options?: Client.CallOptions
) => Stream.Stream<Receipt, GrpcError | E, R>

const orderBytes = (order: Order): Buffer => Buffer.from(order.id)
const toOrder = (bytes: Buffer): Order => ({ id: bytes.toString() })
const receiptBytes = (receipt: Receipt): Buffer => Buffer.from(String(receipt.total))
const toReceipt = (bytes: Buffer): Receipt => ({ total: Number(bytes.toString()) })
const messages = {
  requestSerialize: orderBytes,
  requestDeserialize: toOrder,
  responseSerialize: receiptBytes,
  responseDeserialize: toReceipt
}

const to = { address: "localhost:1", credentials: grpc.credentials.createInsecure() }

describe("a definition as ts-proto writes it", () => {
  // `export const ShopService = { … } as const` with literal flags and functions of its own.
  const ShopService = {
    buy: {
      path: "/shop.Shop/Buy" as const,
      requestStream: false as const,
      responseStream: false as const,
      ...messages
    },
    watch: {
      path: "/shop.Shop/Watch" as const,
      requestStream: false as const,
      responseStream: true as const,
      ...messages
    },
    upload: {
      path: "/shop.Shop/Upload" as const,
      requestStream: true as const,
      responseStream: false as const,
      ...messages
    },
    chat: {
      path: "/shop.Shop/Chat" as const,
      requestStream: true as const,
      responseStream: true as const,
      ...messages
    }
  } as const

  test("gives a function for each kind of method", () => {
    const made = Client.make(ShopService, to)
    type Shop = Effect.Success<typeof made>
    expectTypeOf<Shop["buy"]>().toEqualTypeOf<Unary>()
    expectTypeOf<Shop["watch"]>().toEqualTypeOf<ServerStream>()
    expectTypeOf<Shop["upload"]>().toEqualTypeOf<Upload>()
    expectTypeOf<Shop["chat"]>().toEqualTypeOf<Chat>()
    expectTypeOf(made).toExtend<Effect.Effect<Client.Client<typeof ShopService>, GrpcError, Scope.Scope>>()
  })
})

describe("a definition as the type generators of grpc-tools write it", () => {
  // `interface IShopService extends grpc.ServiceDefinition<…> { buy: IShopService_IBuy }`
  interface IBuy extends grpc.MethodDefinition<Order, Receipt> {
    path: "/shop.Shop/Buy"
    requestStream: false
    responseStream: false
  }
  interface IUpload extends grpc.MethodDefinition<Order, Receipt> {
    path: "/shop.Shop/Upload"
    requestStream: true
    responseStream: false
  }
  interface IWatch extends grpc.MethodDefinition<Order, Receipt> {
    path: "/shop.Shop/Watch"
    requestStream: false
    responseStream: true
  }
  interface IChat extends grpc.MethodDefinition<Order, Receipt> {
    path: "/shop.Shop/Chat"
    requestStream: true
    responseStream: true
  }
  interface IShopService extends grpc.ServiceDefinition<grpc.UntypedServiceImplementation> {
    buy: IBuy
    upload: IUpload
    watch: IWatch
    chat: IChat
  }

  test("gives a function for each kind of method", () => {
    type Shop = Client.Client<IShopService>
    expectTypeOf<Shop["buy"]>().toEqualTypeOf<Unary>()
    expectTypeOf<Shop["watch"]>().toEqualTypeOf<ServerStream>()
    expectTypeOf<Shop["upload"]>().toEqualTypeOf<Upload>()
    expectTypeOf<Shop["chat"]>().toEqualTypeOf<Chat>()
  })
})

describe("a definition as proto-loader writes it", () => {
  interface Order__Output {
    id: string
    note: string
  }
  interface Receipt__Output {
    total: number
    paid: boolean
  }
  type ReceiptIn = Partial<Receipt__Output>
  interface OrderIn {
    id?: string
    note?: string
  }
  interface ShopDefinition extends grpc.ServiceDefinition {
    Buy: LoadedMethod<OrderIn, ReceiptIn, Order__Output, Receipt__Output>
    Upload: LoadedMethod<OrderIn, ReceiptIn, Order__Output, Receipt__Output>
    Watch: LoadedMethod<OrderIn, ReceiptIn, Order__Output, Receipt__Output>
    Chat: LoadedMethod<OrderIn, ReceiptIn, Order__Output, Receipt__Output>
  }
  interface ShopHandlers extends grpc.UntypedServiceImplementation {
    Buy: grpc.handleUnaryCall<Order__Output, ReceiptIn>
    Upload: grpc.handleClientStreamingCall<Order__Output, ReceiptIn>
    Watch: grpc.handleServerStreamingCall<Order__Output, ReceiptIn>
    Chat: grpc.handleBidiStreamingCall<Order__Output, ReceiptIn>
  }

  test("takes the kinds from the handlers' type, and the messages of the client's side from the definition", () => {
    const definition = {} as ShopDefinition
    const made = Client.make<ShopHandlers, ShopDefinition>(definition, to)
    type Shop = Effect.Success<typeof made>
    expectTypeOf<Shop["Buy"]>().toEqualTypeOf<Client.UnaryMethod<OrderIn, Receipt__Output>>()
    expectTypeOf<Shop["Upload"]>().toEqualTypeOf<Client.ClientStreamMethod<OrderIn, Receipt__Output>>()
    expectTypeOf<Shop["Watch"]>().toEqualTypeOf<Client.ServerStreamMethod<OrderIn, Receipt__Output>>()
    expectTypeOf<Shop["Chat"]>().toEqualTypeOf<Client.BidiMethod<OrderIn, Receipt__Output>>()
  })

  test("is content with the handlers' type alone", () => {
    const made = Client.make<ShopHandlers>({}, to)
    type Shop = Effect.Success<typeof made>
    expectTypeOf<Shop["Buy"]>().toEqualTypeOf<Client.UnaryMethod<Order__Output, ReceiptIn>>()
    expectTypeOf<Shop["Chat"]>().toEqualTypeOf<Client.BidiMethod<Order__Output, ReceiptIn>>()
  })

  test("without a handlers' type no method can be called, and the type says what to do", () => {
    type Shop = Client.Client<ShopDefinition>
    expectTypeOf<Shop["Buy"]>().toExtend<`${string}Client.make<Handlers>(…)`>()
  })
})

describe("what a method may fail with", () => {
  const client = {} as Client.Client<{
    upload: {
      path: "/shop.Shop/Upload"
      requestStream: true
      responseStream: false
    } & typeof messages
  }>

  test("is its GrpcError and what its request stream fails with, and it needs what that needs", () => {
    const requests = {} as Stream.Stream<Order, "out of stock", Scope.Scope>
    const uploads = () => client.upload(requests)
    expectTypeOf<ReturnType<typeof uploads>>().toEqualTypeOf<
      Effect.Effect<Receipt, GrpcError | "out of stock", Scope.Scope>
    >()
  })
})
