import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { collect, metadata, unary } from "./support/echo.ts"
import { kindsAndDials, tunnelPair } from "./support/network.ts"

const text = (value: Buffer | undefined): string => value?.toString() ?? ""

describe.each(kindsAndDials)(
  "a stock stub and a stock handler over a %s tunnel dialled over %s",
  (kind, dialled) => {
    it.live("exchange a unary call with metadata in all directions", () =>
      Effect.gen(function* () {
        const { client } = yield* tunnelPair(kind, { with: dialled })
        const sent = metadata({ "head-a": "1", "tail-b": "2", "tail-c-bin": Buffer.from("raw") })
        const answer = yield* Effect.promise(() => unary(client, Buffer.from("hello"), { metadata: sent }))
        expect(answer.code).toBe(grpc.status.OK)
        expect(text(answer.value)).toBe("hello")
        expect(answer.headers?.get("head-a")).toEqual(["1"])
        expect(answer.trailers?.get("tail-b")).toEqual(["2"])
        expect(answer.trailers?.get("tail-c-bin")).toEqual([Buffer.from("raw")])
      }).pipe(Effect.scoped)
    )

    it.live("exchange an error with its trailers", () =>
      Effect.gen(function* () {
        const { client } = yield* tunnelPair(kind, { with: dialled })
        const sent = metadata({ fail: "9", "tail-b": "2" })
        const answer = yield* Effect.promise(() => unary(client, Buffer.from("x"), { metadata: sent }))
        expect(answer).toMatchObject({ code: 9, details: "as asked", value: undefined })
        expect(answer.trailers?.get("tail-b")).toEqual(["2"])
      }).pipe(Effect.scoped)
    )

    it.live("go on after trailers that cannot be sent, which fail their call", () =>
      Effect.gen(function* () {
        const { client } = yield* tunnelPair(kind, {
          with: dialled,
          handlers: {
            Unary: (call, callback) => {
              const trailers = new grpc.Metadata()
              // What a program in JavaScript does with a value that it does not have.
              if (call.request.length === 0) trailers.set("k", undefined as never)
              callback(null, call.request, trailers)
            }
          }
        })
        const send = (request: string) =>
          Effect.promise(() => unary(client, Buffer.from(request), { metadata: metadata() }))
        expect(yield* send("")).toMatchObject({
          code: grpc.status.INTERNAL,
          details: expect.stringContaining('The value of "k" is neither text nor a Buffer')
        })
        expect(yield* send("hello")).toMatchObject({ code: grpc.status.OK, value: Buffer.from("hello") })
      }).pipe(Effect.scoped)
    )

    it.live("exchange a stream of requests", () =>
      Effect.gen(function* () {
        const { client } = yield* tunnelPair(kind, { with: dialled })
        const answer = yield* Effect.promise(
          () =>
            new Promise<string>((resolve, reject) => {
              const call = client.ClientStream(new grpc.Metadata(), {}, (error, value) =>
                error ? reject(error) : resolve(text(value))
              )
              call.write(Buffer.from("a"))
              call.write(Buffer.from("b"))
              call.end(Buffer.from("c"))
            })
        )
        expect(answer).toBe("abc")
      }).pipe(Effect.scoped)
    )

    it.live("exchange a stream of responses", () =>
      Effect.gen(function* () {
        const { client } = yield* tunnelPair(kind, { with: dialled })
        const collected = yield* Effect.promise(() =>
          collect(client.ServerStream(Buffer.from([5]), metadata({ "tail-x": "y" })))
        )
        expect(collected.messages.map((message) => message[0])).toEqual([0, 1, 2, 3, 4])
        expect(collected.code).toBe(grpc.status.OK)
        expect(collected.trailers.get("tail-x")).toEqual(["y"])
      }).pipe(Effect.scoped)
    )

    it.live("exchange streams both ways", () =>
      Effect.gen(function* () {
        const { client } = yield* tunnelPair(kind, { with: dialled })
        const call = client.Bidi()
        const collected = Effect.promise(() => collect(call))
        for (const part of ["a", "", "c"]) call.write(Buffer.from(part))
        call.end()
        const { code, messages } = yield* collected
        expect(messages.map(text)).toEqual(["a", "", "c"])
        expect(code).toBe(grpc.status.OK)
      }).pipe(Effect.scoped)
    )
  }
)
