import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { afterEach, describe, expect, test } from "vitest"

const main = fileURLToPath(new URL("../src/main.ts", import.meta.url))
const limit = 60_000
const childrenOf = (pid: number): string => `/proc/${pid}/task/${pid}/children`
const running = new Set<ChildProcess>()

afterEach(() => {
  for (const child of running) child.kill("SIGKILL")
})

const start = (...args: ReadonlyArray<string>) => {
  const child = spawn(process.execPath, ["-C", "@curfew/source", main, ...args], {
    stdio: ["ignore", "pipe", "pipe"]
  })
  const output = { stdout: "", stderr: "" }
  running.add(child)
  child.stdout.on("data", (chunk) => {
    output.stdout += chunk
  })
  child.stderr.on("data", (chunk) => {
    output.stderr += chunk
  })
  const end = once(child, "close").then(([code]) => {
    running.delete(child)
    return { code: code as number | null, ...output }
  })
  /** Waits until stdout has said something. */
  const saying = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const found = pattern.exec(output.stdout)
      if (found !== null) return found
      await Promise.race([
        once(child.stdout, "data"),
        end.then(() =>
          Promise.reject(new Error(`It ended without ${pattern}: ${output.stdout}${output.stderr}`))
        )
      ])
    }
  }
  return { child, end, saying }
}

const run = (...args: ReadonlyArray<string>) => start(...args).end

const lastLine = (stdout: string) => JSON.parse(stdout.trimEnd().split("\n").at(-1) as string)

/** Lines that tell of a call and stand under the headline of another. */
const strayLines = (stdout: string): ReadonlyArray<string> => {
  let under = ""
  return stdout.split("\n").filter((line) => {
    under = /^([cg]\d+) {2}/.exec(line)?.[1] ?? under
    const call = /^ +[\d.]+ .*?[a-z]+ +([cg]\d+) /.exec(line)?.[1]
    return call !== undefined && call !== under
  })
}

const clean = {
  calls: 8,
  answered: 4,
  handled: 8,
  cancelled: 4,
  cancelledBy: { client: 2, deadline: 1, limit: 1 },
  cancelledInAWrite: 1,
  unhandled: 0,
  leakedFibers: 0,
  openStreams: 0,
  listeners: 0,
  timers: 0,
  ports: 0,
  sockets: 0,
  stuck: 0,
  lateWrites: 0,
  errorLogs: 0,
  abandoned: 0,
  durationMs: expect.any(Number),
  scenarioMs: expect.any(Number),
  ok: true
}

describe("the scenario", { timeout: limit }, () => {
  test("goes as planned, leaves nothing behind, and says why everybody left", async () => {
    const { code, stderr, stdout } = await run("--once")
    expect(stderr).toBe("")
    expect(lastLine(stdout)).toEqual(clean)
    expect(code).toBe(0)
    expect(stdout).toContain("the client leaves: three pages are enough")
    expect(stdout).toContain("cancelled while it hashed: the peer's deadline has passed")
    expect(stdout).toContain("the server ends it: the limit of 5000 hashes is exceeded")
    expect(stdout).toContain("closes its scopes: search, then call")
    expect(stdout).toContain("the stream ends after 3 pages with 12 matches")
    expect(stdout).toContain("closes: frames, then the caller's status, then its entry")
    expect(stdout).toContain("the tunnel closes from this end: the server is shutting down (drain)")
    expect(strayLines(stdout)).toEqual([])
  })

  // The children of a process are read from /proc; where there is none, nothing tells when it listens to signals.
  test.skipIf(!existsSync(childrenOf(process.pid)))("says in one line that Ctrl-C came first", async () => {
    const up = start("--once")
    // It says nothing before it has ended; once it has children it listens to signals.
    while (readFileSync(childrenOf(up.child.pid as number), "utf8").trim() === "") {
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    up.child.kill("SIGINT")
    expect(await up.end).toEqual({
      code: 130,
      stdout: "",
      stderr: "Stopped before the scenario had ended.\n"
    })
  })

  test.each([
    ["fiber", { leakedFibers: 1 }],
    ["stream", { openStreams: 1 }],
    ["error", { unhandled: 1 }]
  ])("with a planted %s is found out", async (plant, found) => {
    const { code, stdout } = await run("--once", `--plant=${plant}`)
    expect(lastLine(stdout)).toMatchObject({ ...found, ok: false })
    expect(strayLines(stdout)).toEqual([])
    expect(code).toBe(1)
  })
})

describe("staying up", { timeout: limit }, () => {
  test("takes calls until Ctrl-C, and then cancels what a second Ctrl-C does not wait for", async () => {
    const up = start()
    const [, port] = await up.saying(/takes calls on 127\.0\.0\.1:(\d+)/)
    const answered = await run("call", `--gateway=127.0.0.1:${port}`, "--word=cat")
    expect(answered).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(
        /^distance {2}SHA-256 in base64 .*\n +1 {2}\S{44} {2}04\n6 hashes tried\n$/
      ),
      stderr: ""
    })

    const endless = ["call", `--gateway=127.0.0.1:${port}`, "--word=unobtainable", "--distance=0"]
    const find = start(...endless)
    await up.saying(/g2 +Find starts/)
    const range = start(...endless, "--range")
    await up.saying(/g3 +FindRange starts/)
    up.child.kill("SIGINT")
    await up.saying(/Ctrl-C: /)
    up.child.kill("SIGINT")
    for (const call of [find, range]) {
      expect(await call.end).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/^UNAVAILABLE: .*shutting down/)
      })
    }
    const { code, stderr, stdout } = await up.end
    expect(stdout).toMatch(/gateway +0 drained, 2 cancelled, 0 abandoned/)
    expect(stdout).toContain("skipped by a second Ctrl-C")
    expect(stderr).toBe("")
    expect(code).toBe(0)
  })

  test("tells how to call it from Node, in lines that work as they are printed", async () => {
    const up = start()
    const [, lines = ""] = await up.saying(/run from here with: node there\.mjs\n\n((?: {2}.*\n)+)\n/)
    // With its working directory this is what a file there would do.
    const there = spawn(process.execPath, ["--input-type=module", "-e", lines], { stdio: "pipe" })
    running.add(there)
    let answer = ""
    there.stdout.on("data", (chunk) => {
      answer += chunk
    })
    expect(await once(there, "close")).toEqual([0, null])
    expect(answer).toContain("tried: 6")
    up.child.kill("SIGINT")
    expect((await up.end).code).toBe(0)
  })

  test("ends its processes when it is killed", async () => {
    const up = start()
    await up.saying(/Ctrl-C shuts down in stages/)
    up.child.kill("SIGKILL")
    // The children hold its stderr open: this resolves when the last of them has ended.
    await up.end
  })
})

describe("a part by hand", { timeout: limit }, () => {
  test("that finds nobody says so in one sentence", async () => {
    expect(await run("agent", "--gateway=127.0.0.1:1")).toEqual({
      code: 1,
      stdout: "",
      stderr: "No gateway can be reached at 127.0.0.1:1; start one with: npm run reference -- gateway\n"
    })
    expect(await run("call", "--gateway=127.0.0.1:1")).toEqual({
      code: 1,
      stdout: "",
      stderr:
        "No gateway can be reached at 127.0.0.1:1. `npm run reference` prints the port it took (or give it one: " +
        "`npm run reference -- --port=50051`); then: npm run reference -- call --gateway=127.0.0.1:PORT\n"
    })
  })

  test("whose port is in use says so in one sentence", async () => {
    const first = start("backend", "--port=0")
    const [, port] = await first.saying(/listens on 127\.0\.0\.1:(\d+)/)
    const inUse = `Port ${port} of 127.0.0.1 is in use; choose another with --port=N, or`
    expect(await run("backend", `--port=${port}`)).toEqual({
      code: 1,
      stdout: "",
      stderr: `${inUse} take a free one with --port=0.\n`
    })
    // The scenario's default is a free port, a part's is not.
    expect(await run(`--port=${port}`)).toEqual({
      code: 1,
      stdout: "",
      stderr: `${inUse} leave the flag out for a free one.\n`
    })
    first.child.kill("SIGINT")
    expect((await first.end).code).toBe(0)
  })

  test("without its backend answers UNAVAILABLE and stays connected", async () => {
    const gateway = start("gateway", "--port=0", "--tunnel-port=0")
    const [, port, tunnelPort] = await gateway.saying(
      /calls on 127\.0\.0\.1:(\d+) and agents on 127\.0\.0\.1:(\d+)/
    )
    const agent = start("agent", `--gateway=127.0.0.1:${tunnelPort}`, "--backend=127.0.0.1:1")
    await agent.saying(/The agent offers/)
    for (let call = 1; call <= 2; call++) {
      expect(await run("call", `--gateway=127.0.0.1:${port}`)).toEqual({
        code: 1,
        stdout: "",
        stderr: "UNAVAILABLE: The agent is connected, but its backend at 127.0.0.1:1 cannot be reached.\n"
      })
    }
    agent.child.kill("SIGINT")
    gateway.child.kill("SIGINT")
    expect([(await agent.end).code, (await gateway.end).code]).toEqual([0, 0])
  })

  test("with a wrong command line ends with code 2", async () => {
    expect(await run("--wrong")).toMatchObject({
      code: 2,
      stdout: "",
      stderr: expect.stringMatching(/^Unknown flag.*\n$/)
    })
  })
})
