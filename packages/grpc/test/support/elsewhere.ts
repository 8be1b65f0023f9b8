/** A client in a process of its own: `node elsewhere.ts <grpc|tunnel> <port> <path> <kind>` calls, and holds the call. */
import { openForward } from "@curfew/tunnel"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"

const [transport, port, path = "", kind] = process.argv.slice(2)
const address = `127.0.0.1:${port}`
const credentials = grpc.credentials.createInsecure()
const bytes = (text: string): Buffer => Buffer.from(text)
const text = (from: Buffer): string => from.toString()

const hold = (client: grpc.Client): void => {
  const metadata = new grpc.Metadata()
  const ignore = (): void => undefined
  if (kind === "serverStream") {
    client
      .makeServerStreamRequest(path, bytes, text, "q", metadata, {})
      .on("error", ignore)
      .on("data", ignore)
  } else client.makeUnaryRequest(path, bytes, text, "q", metadata, {}, ignore)
}

if (transport === "tunnel") {
  const program = Effect.flatMap(openForward({ address, credentials }), (tunnel) => {
    hold(tunnel.client(grpc.Client))
    return Effect.never
  })
  await Effect.runPromise(Effect.scoped(program))
} else hold(new grpc.Client(address, credentials))
