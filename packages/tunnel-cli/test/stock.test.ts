/** Clients and servers that have never heard of tunnels: Python's grpcio at both ends, and grpcurl. */
import { execFile } from "node:child_process"
import { homedir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import * as grpc from "@grpc/grpc-js"
import { loadSync } from "@grpc/proto-loader"
import { ReflectionService } from "@grpc/reflection"
import { describe, expect, test } from "vitest"
import { atEnd } from "./support/cleanUp.ts"
import { start, startAgent, startGateway } from "./support/program.ts"
import { findPython } from "./support/python.ts"

const execute = promisify(execFile)
const fixture = (name: string): string => fileURLToPath(new URL(`fixtures/${name}`, import.meta.url))

describe("a stock Python client reaches a stock Python server", { timeout: 300_000 }, () => {
  test("in all four kinds, with metadata, details, a deadline and a cancel", async ({ skip }) => {
    const python = await findPython()
    if (typeof python === "string") {
      // The default reporter does not say why a test was skipped.
      console.warn(python)
      return skip(python)
    }
    const server = start([], python.env, [
      "sh",
      "-c",
      'exec "$0" "$@" 1>&2',
      python.command,
      fixture("server.py")
    ])
    const [, address = ""] = await server.says(/listens on (\S+)/)
    const gateway = await startGateway()
    await startAgent(gateway, address)
    const client = start([], python.env, [python.command, fixture("client.py"), gateway.expose])
    const code = await client.end
    expect(client.log()).toBe("")
    expect(client.out().split("\n")).toEqual(["unary", "streams", "details", "deadline", "cancel", ""])
    expect(code).toBe(0)
    await server.says(/metadata one(, |,)two/)
    await server.says(/remaining (5[5-9]|60)/)
    // One for the deadline, one for the cancel.
    await server.says(/cancelled/)
    await server.says(/cancelled/)
  })
})

const findGrpcurl = async (): Promise<string | undefined> => {
  for (const command of ["grpcurl", join(homedir(), "go/bin/grpcurl")]) {
    try {
      await execute(command, ["-version"])
      return command
    } catch {}
  }
  return undefined
}

const startSpeaker = async (): Promise<string> => {
  const definition = loadSync(fixture("voice.proto"), { defaults: true })
  const server = new grpc.Server()
  server.addService(definition["demo.Speaker"] as grpc.ServiceDefinition, {
    Shout: ({ request }: { request: { text: string } }, respond: grpc.sendUnaryData<{ text: string }>) =>
      request.text === ""
        ? respond({ code: grpc.status.INVALID_ARGUMENT, details: "say something" })
        : respond(null, { text: request.text.toUpperCase() }),
    Spell: (call: grpc.ServerWritableStream<{ text: string }, { text: string }>) => {
      for (const text of call.request.text) call.write({ text })
      call.end()
    }
  })
  new ReflectionService(definition).addToServer(server)
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, on) =>
      error === null ? resolve(on) : reject(error)
    )
  )
  atEnd(() => server.forceShutdown())
  return `127.0.0.1:${port}`
}

describe("grpcurl", { timeout: 120_000 }, () => {
  test("lists, describes and calls what an agent serves, by the backend's own reflection", async ({
    skip
  }) => {
    const command = await findGrpcurl()
    if (command === undefined) {
      const why =
        "Install grpcurl to run this test: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"
      console.warn(why)
      return skip(why)
    }
    const gateway = await startGateway()
    await startAgent(gateway, await startSpeaker())
    const grpcurl = (words: ReadonlyArray<string>, flags: ReadonlyArray<string> = []) =>
      execute(command, ["-plaintext", "-H", "curfew-agent: home", ...flags, gateway.expose, ...words])
    expect((await grpcurl(["list"])).stdout).toContain("demo.Speaker\n")
    expect((await grpcurl(["describe", "demo.Speaker.Spell"])).stdout).toContain(
      "returns ( stream .demo.Text )"
    )
    const shouted = await grpcurl(["demo.Speaker/Shout"], ["-d", '{"text":"hello"}'])
    expect(JSON.parse(shouted.stdout)).toEqual({ text: "HELLO" })
    const spelled = await grpcurl(["demo.Speaker/Spell"], ["-d", '{"text":"ab"}'])
    expect(spelled.stdout.match(/"text": "(.)"/g)).toEqual(['"text": "a"', '"text": "b"'])
    await expect(grpcurl(["demo.Speaker/Shout"])).rejects.toThrow(
      /Code: InvalidArgument\n\s+Message: say something/
    )
  })
})
