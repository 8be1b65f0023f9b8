import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { endless, run, startServer } from "./support/processes.ts"
import { findPython, type Python } from "./support/python.ts"

let python: Python | string

beforeAll(async () => {
  python = await findPython()
  // The default reporter does not say why a test was skipped.
  if (typeof python === "string") console.warn(python)
}, 180_000)

afterAll(() => {
  if (typeof python !== "string") python.remove()
})

describe.each([
  ["in its own thread", "--workers=0"],
  ["in a worker thread", "--workers=1"]
])("a server that searches %s, and a stock Python client", { timeout: 120_000 }, (_, workers) => {
  const start = (address: string, { client, command, env }: Python, ...args: ReadonlyArray<string>) =>
    run(command, [client, `--server=${address}`, ...args], env)

  test("whose future is cancelled", async ({ skip }) => {
    if (typeof python === "string") return skip(python)
    const server = await startServer(workers)
    const client = start(server.address, python, endless)
    await client.says(/Ctrl-C cancels the call\n/)
    await server.says(/Find .* begins\n/)
    client.interrupt()
    expect(await client.end).toBe(130)
    expect(client.output()).toContain("The future was cancelled\n")
    await server.says(/Find .* cancelled: the client has gone \(grpc\); stopped after \d+ hashes/)
  })

  test("whose stream is cancelled in the middle", async ({ skip }) => {
    if (typeof python === "string") return skip(python)
    const server = await startServer(workers)
    const client = start(server.address, python, endless, "--stream", "--interesting=19")
    await client.says(/distance 19 .*\n/)
    client.interrupt()
    expect(await client.end).toBe(130)
    expect(client.output()).toContain("The stream was cancelled\n")
    await server.says(/FindEach .* cancelled: the client has gone \(grpc\); stopped after \d+ hashes/)
  })

  test("that is answered, and told of the limit", async ({ skip }) => {
    if (typeof python === "string") return skip(python)
    const server = await startServer(workers, "--limit=10000")
    const answered = start(server.address, python, "--name=ab")
    expect(await answered.end).toBe(0)
    expect(answered.output()).toContain('is the hash of "7"\n')
    const limited = start(server.address, python, endless)
    expect(await limited.end).toBe(1)
    expect(limited.output()).toContain("The call ended with RESOURCE_EXHAUSTED: ")
  })
})
