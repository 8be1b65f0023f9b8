/** Says so when a new grpc-js looks its handlers up otherwise. */
import * as grpc from "@grpc/grpc-js"
import { describe, expect, test } from "vitest"
import { catchAll } from "../src/internal/catchAll.ts"
import { atEnd } from "./support/cleanUp.ts"
import { clientOf } from "./support/voice.ts"

const bytes = (value: Buffer): Buffer => value

const call = (client: grpc.Client, path: string): Promise<string> =>
  new Promise((resolve) =>
    client.makeUnaryRequest(path, bytes, bytes, Buffer.from("x"), (error, answer) =>
      resolve(error === null ? `${answer}` : (grpc.status[error.code] ?? ""))
    )
  )

const serve = async (server: grpc.Server): Promise<grpc.Client> => {
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, on) =>
      error === null ? resolve(on) : reject(error)
    )
  )
  atEnd(() => server.forceShutdown())
  return clientOf(`127.0.0.1:${port}`)
}

describe("the handler for every method", () => {
  test("gets the calls that no registered method takes, and nothing of them stays", async () => {
    const server = new grpc.Server()
    server.register(
      "/own.Service/Own",
      (_: unknown, respond: grpc.sendUnaryData<Buffer>) => respond(null, Buffer.from("own")),
      bytes,
      bytes,
      "unary"
    )
    catchAll(server, (incoming) => {
      incoming.on("data", () => incoming.write(Buffer.from(incoming.getPath())))
      incoming.on("end", () => incoming.end())
    })
    const client = await serve(server)
    expect(await call(client, "/own.Service/Own")).toBe("own")
    expect(await call(client, "/any.Service/One")).toBe("/any.Service/One")
    expect(await call(client, "/any.Service/Two")).toBe("/any.Service/Two")
    const { handlers } = server as unknown as { readonly handlers: ReadonlyMap<string, unknown> }
    expect([...handlers.keys()]).toEqual(["/own.Service/Own"])
    server.register(
      "/late.Service/Late",
      (_: unknown, respond: grpc.sendUnaryData<Buffer>) => respond(null, Buffer.from("late")),
      bytes,
      bytes,
      "unary"
    )
    expect(await call(client, "/late.Service/Late")).toBe("late")
  })

  test("is refused by a server that keeps its handlers elsewhere", () => {
    expect(() => catchAll({} as grpc.Server, () => undefined)).toThrow(
      /^This version of @grpc\/grpc-js cannot serve/
    )
  })
})
