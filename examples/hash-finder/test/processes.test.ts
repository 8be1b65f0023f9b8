import { fileURLToPath } from "node:url"
import { Client, credentials, status } from "@grpc/grpc-js"
import { describe, expect, test } from "vitest"
import { endless, run, startClient, startServer } from "./support/processes.ts"

const limit = 120_000

describe.each([
  ["in its own thread", "--workers=0"],
  ["in a worker thread", "--workers=1"]
])("with a server that searches %s", { timeout: limit }, (_, workers) => {
  test.each([
    ["Find", []],
    ["FindEach", ["--stream"]]
  ])("Ctrl-C in the client cancels %s, and the server stops", async (method, more) => {
    const server = await startServer(workers)
    const client = startClient(server.address, endless, ...more)
    await server.says(/grpc-1 {2}\w+ "theneedleinthehaystack" begins\n/)
    client.interrupt()
    expect(await client.end).toBe(130)
    expect(client.output()).toMatch(
      new RegExp(`\n${method} "theneedleinthehaystack" was cancelled after \\d+\\.\\d s: Ctrl-C\n$`)
    )
    const [, hashes] = await server.says(
      /grpc-1 .* cancelled: the client has gone \(grpc\); stopped after (\d+) hashes, \d+\.\d ms after the cancel/
    )
    expect(Number(hashes)).toBeGreaterThan(0)

    // The server is as good as new.
    const next = startClient(server.address, "--name=ab")
    expect(await next.end).toBe(0)
    await server.says(/grpc-2 .* ends after 8 hashes/)
  })

  test("a cancelled stream has given what it found until then", async () => {
    const server = await startServer(workers)
    const client = startClient(server.address, endless, "--stream", "--interesting=19")
    await client.says(/distance 19 .* is the hash of "/)
    client.interrupt()
    expect(await client.end).toBe(130)
    await server.says(/FindEach .* cancelled: the client has gone/)
  })

  test("the server cancels at its limit, and the client is told RESOURCE_EXHAUSTED", async () => {
    const server = await startServer(workers, "--limit=10000")
    for (const more of [[], ["--stream"]]) {
      const client = startClient(server.address, endless, ...more)
      expect(await client.end).toBe(1)
      expect(client.output()).toMatch(
        /Find(Each)? "theneedleinthehaystack" ended with RESOURCE_EXHAUSTED: The call spent its 10000 units of work\n$/
      )
      // Not one hash more.
      await server.says(/cancelled: the call spent its 10000 units of work; stopped after 10000 hashes/)
    }
  })
})

describe("a cancelled worker", { timeout: limit }, () => {
  test("is back in the pool within one batch, and takes the next call", async () => {
    const server = await startServer("--workers=1")
    const client = startClient(server.address, endless)
    await server.says(/begins\n/)
    client.interrupt()
    const [, worker, past] = await server.says(/cancelled: .*; worker (\d+) is back after (\d+) hashes/)
    expect(Number(past)).toBeLessThanOrEqual(128)
    expect(await startClient(server.address, "--name=ab").end).toBe(0)
    await server.says(new RegExp(`ends after 8 hashes by worker ${worker}\n`))
  })
})

describe("a call", { timeout: limit }, () => {
  test("shows what it finds, and ends by itself", async () => {
    const server = await startServer()
    const one = startClient(server.address, "--name=ab")
    expect(await one.end).toBe(0)
    expect(one.output()).toContain(
      'distance 0  eQJpm+Qsio5G+7tFAXJlF+hrIsVqGJ92JabaSQgbJFE  is the hash of "7"'
    )
    const each = startClient(server.address, "--name=abc", "--stream", "--ideal=1", "--interesting=2")
    expect(await each.end).toBe(0)
    const distances = [...each.output().matchAll(/^distance (\d)/gm)].map(([, distance]) => distance)
    expect(distances.at(-1)).toBe("1")
    expect(distances.slice(0, -1).every((distance) => distance === "2")).toBe(true)
  })

  test("that makes no sense is answered with a sentence", async () => {
    const server = await startServer()
    const client = startClient(server.address, "--name=needle-work")
    expect(await client.end).toBe(1)
    expect(client.output()).toContain(
      "ended with INVALID_ARGUMENT: Give a desired name of 1 to 43 characters that base64 has"
    )
  })

  test("to nobody ends with a sentence", async () => {
    const client = startClient("127.0.0.1:1")
    expect(await client.end).toBe(1)
    expect(client.output()).toContain(
      "Nobody listens at 127.0.0.1:1; start a server: npm run -w @curfew/example-hash-finder server\n"
    )
  })
})

/** What health says of the server while it is watched: 1 is SERVING, 2 NOT_SERVING. */
const watchHealth = (address: string) => {
  const client = new Client(address, credentials.createInsecure())
  const path = "/grpc.health.v1.Health/Watch"
  const same = (bytes: Buffer) => bytes
  const call = client.makeServerStreamRequest(path, same, same, Buffer.alloc(0))
  const said: Array<number | undefined> = []
  const first = new Promise<void>((resolve) => {
    call.on("data", (bytes: Buffer) => {
      said.push(bytes[1])
      resolve()
    })
  })
  const ended = new Promise<number>((resolve) => {
    call.on("error", ({ code }: { readonly code: number }) => {
      client.close()
      resolve(code)
    })
  })
  return { said, first, ended }
}

/** The last of the lines about what was waited for. */
const endOfReport = / {2}(drained|cancelled) .* {2}(main|hook|task)\n$/

/** From the first line of the report on. */
const reportIn = (output: string): string => output.slice(output.indexOf("\nShutdown after ") + 1)

describe("Ctrl-C in the server", { timeout: limit }, () => {
  test("lets the call that runs go on, takes no other, and ends with the report", async () => {
    const server = await startServer("--drain=3600")
    const client = startClient(server.address, endless)
    await server.says(/Find .* begins\n/)
    server.interrupt()
    await server.says(/SIGINT: no new calls; those that run may end within 3600 s, or Ctrl-C again\n/)
    const refused = startClient(server.address)
    expect(await refused.end).toBe(1)
    expect(refused.output()).toContain("Nobody listens at")
    expect(server.output()).not.toContain("cancelled")

    client.interrupt()
    expect(await client.end).toBe(130)
    expect(await server.end).toBe(0)
    // It ended because its client left, while the server still drained: nothing was forced.
    expect(server.output()).toMatch(/Find .* cancelled: the client has gone \(grpc\); stopped after/)
    const report = reportIn(server.output())
    expect(report).toMatch(/^Shutdown after SIGINT in .*: \d drained, 1 cancelled, 0 abandoned\n/)
    expect(report).toMatch(/\n {2}drain +\d+\.\d s {2}done\n/)
    expect(report).toMatch(/\n {2}drained .* hash finder +main\n/)
    expect(report).toMatch(endOfReport)
  })

  test("is told to whoever watches its health", async () => {
    const server = await startServer()
    const health = watchHealth(server.address)
    await health.first
    server.interrupt()
    expect(await health.ended).toBe(status.UNAVAILABLE)
    expect(health.said).toEqual([1, 2])
    expect(await server.end).toBe(0)
    expect(reportIn(server.output())).toMatch(endOfReport)
  })

  test.each(["--workers=0", "--workers=1"])(
    "a second time cancels what still runs, with %s",
    async (workers) => {
      const server = await startServer("--drain=3600", workers)
      const client = startClient(server.address, endless)
      await server.says(/Find .* begins\n/)
      const first = performance.now()
      server.interrupt()
      await server.says(/SIGINT: no new calls/)
      // Within 100 ms a second signal is taken for an echo of the first. Another client takes longer to be refused.
      do expect(await startClient(server.address).end).toBe(1)
      while (performance.now() - first < 200)
      server.interrupt()
      expect(await client.end).toBe(1)
      expect(client.output()).toContain("ended with UNAVAILABLE: The server is shutting down")
      expect(await server.end).toBe(0)
      await server.says(/Find .* cancelled: the server is shutting down \(force\); stopped after \d+ hashes/)
      const report = reportIn(server.output())
      expect(report).toMatch(/^Shutdown after SIGINT in .*: \d drained, \d cancelled, 0 abandoned\n/)
      expect(report).toMatch(/ {2}cancelled .* {2}\/curfew\.hashfinder\.v1\.HashFinder\/Find +task\n/)
      expect(report.match(/HashFinder\/Find/g)).toHaveLength(1)
      expect(report).toMatch(endOfReport)
    }
  )
})

describe("the command line", { timeout: limit }, () => {
  const npm = (program: string, ...args: ReadonlyArray<string>) => {
    const root = fileURLToPath(new URL("../../..", import.meta.url))
    return run("npm", [
      "--prefix",
      root,
      "run",
      "-s",
      "-w",
      "@curfew/example-hash-finder",
      program,
      "--",
      ...args
    ])
  }

  test.each([
    ["server", "--workers=0 "],
    ["client", "--ideal=0 "]
  ])("of the %s has help", async (program, flag) => {
    const help = npm(program, "--help")
    expect(await help.end).toBe(0)
    expect(help.output()).toContain(flag)
  })

  test.each(["server", "client"])("of the %s says what is wrong with a flag", async (program) => {
    const wrong = npm(program, "--port=1e5", "--ideal")
    expect(await wrong.end).toBe(2)
    expect(wrong.output()).toMatch(
      /^(--port takes a whole number from 0 to 65535, not "1e5"\.|There is no flag "--port=1e5"; use .*)\n$/
    )
  })

  test("of a server whose port is taken says so", async () => {
    const server = await startServer()
    const second = run(process.execPath, [
      "-C",
      "@curfew/source",
      fileURLToPath(new URL("../src/server.ts", import.meta.url)),
      `--port=${server.address.split(":")[1]}`
    ])
    expect(await second.end).toBe(1)
    expect(second.output()).toMatch(
      /^The server could not listen on 127\.0\.0\.1:\d+ because the address is in use; free it, or choose another\.$/m
    )
  })
})
