/** Watching the program, and ending it. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as grpc from "@grpc/grpc-js"
import { describe, expect, test } from "vitest"
import { atEnd } from "./support/cleanUp.ts"
import { cli, type Running, runToEnd, start, startAgent, startGateway } from "./support/program.ts"
import { clientOf, collect, serverStream, startBackend, unary } from "./support/voice.ts"

const { status: Code } = grpc

const lastBlock = (log: string): string => log.slice(log.indexOf("Shutdown after"))

const ask = async (admin: string, path: string) => {
  const response = await fetch(`http://${admin}${path}`)
  return { status: response.status, text: await response.text() }
}

/** What a program tells of itself once its shutdown has come to a stage. */
const inStage = async (
  admin: string,
  stage: string
): Promise<{ ready: boolean; waitingFor: ReadonlyArray<string> }> => {
  const status = JSON.parse((await ask(admin, "/status")).text)
  return status.stage === stage ? status : inStage(admin, stage)
}

const busy = async (args: ReadonlyArray<string> = [], agentArgs: ReadonlyArray<string> = []) => {
  const backend = await startBackend()
  const gateway = await startGateway(args)
  const agent = await startAgent(gateway, backend.address, agentArgs)
  const client = clientOf(gateway.expose)
  const { cancelled, waiting } = backend.nextWait()
  const call = serverStream(client, "Wait", "x")
  const outcome = collect(call)
  await waiting
  return { backend, gateway, agent, client, call, outcome, cancelled }
}

describe("the end of the program", { timeout: 120_000 }, () => {
  test("a SIGTERM lets calls end and takes no new ones; the report is the last that is printed", async () => {
    const { call, client, gateway, outcome } = await busy()
    gateway.signal("SIGTERM")
    const refused = async (): Promise<grpc.StatusObject> => {
      const { status } = await unary(client, "Shout", "x")
      return status.code === Code.UNAVAILABLE ? status : refused()
    }
    await refused()
    // New calls are refused from the stage before on.
    const status = await inStage(gateway.admin, "drain")
    expect(status.ready).toBe(false)
    expect(status.waitingFor).toContain("/demo.Voice/Wait via home")
    expect((await ask(gateway.admin, "/readyz")).status).toBe(503)
    call.cancel()
    await outcome
    expect(await gateway.end).toBe(0)
    const report = lastBlock(gateway.log())
    expect(report).toMatch(/^Shutdown after SIGTERM in /)
    expect(report).toMatch(/drained .*\/demo\.Voice\/Wait via home {2,}task/)
    // Nothing comes behind the report.
    expect(report).not.toMatch(/ (info|warn|error) /)
  })

  test("a second SIGTERM cancels at once: the caller is told, the backend's handler ends", async () => {
    const { cancelled, gateway, outcome } = await busy(["--drain", "1h"])
    gateway.signal("SIGTERM")
    // The signals are told apart by time: within a tenth of a second they would be one, delivered twice.
    await inStage(gateway.admin, "drain")
    await outsideTheSignalWindow()
    gateway.signal("SIGTERM")
    expect((await outcome).status.code).toBe(Code.UNAVAILABLE)
    await cancelled
    expect(await gateway.end).toBe(0)
    const report = lastBlock(gateway.log())
    expect(report).toMatch(/drain {2}.*a signal|drain .*signal/)
    expect(report).toMatch(/cancelled .*\/demo\.Voice\/Wait via home {2,}task/)
  })

  test("an agent that ends lets its calls end, and the gateway sends it no new ones", async () => {
    const { agent, call, client, gateway, outcome } = await busy()
    agent.signal("SIGTERM")
    // Until the gateway has heard of it, the agent itself refuses what is new.
    const refused = async (): Promise<string> => {
      const { status } = await unary(client, "Shout", "x")
      return status.details.startsWith("No agent") ? status.details : refused()
    }
    expect(await refused()).toMatch(/^No agent with the key "home"/)
    call.cancel()
    await outcome
    expect(await agent.end).toBe(0)
    expect(lastBlock(agent.log())).toMatch(/drained .*\/demo\.Voice\/Wait/)
    await gateway.says(/tunnel closed key=home/)
  })

  test("with JSON, every line is one object, and the last one is the report", async () => {
    const gateway = await startJson()
    gateway.signal("SIGINT")
    expect(await gateway.end).toBe(0)
    const lines = gateway
      .log()
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line))
    expect(lines[0]).toMatchObject({ level: "info", message: "gateway ready" })
    expect(lines.at(-1)).toMatchObject({ message: "shutdown", trigger: "SIGINT" })
  })
})

/** One Ctrl-C may arrive twice within a tenth of a second; a person's second one comes later. */
const outsideTheSignalWindow = () => new Promise((resolve) => setTimeout(resolve, 150))

const startJson = async (): Promise<Running> => {
  const running = start([
    "gateway",
    "--listen=127.0.0.1:0",
    "--expose=127.0.0.1:0",
    "--admin=off",
    "--log-format=json"
  ])
  await running.says(/gateway ready/)
  return running
}

describe("watching it", { timeout: 120_000 }, () => {
  test("status, metrics and health say what happens", async () => {
    const { call, client, gateway, outcome } = await busy()
    await unary(client, "Shout", "hello")
    await unary(client, "Fail", "hello")
    await unary(client, "Shout", "hello", "nobody")

    const once = await runToEnd(["status", "--admin", gateway.admin, "--once", "--json"])
    expect(once.code).toBe(0)
    const now = JSON.parse(once.out)
    expect(now).toMatchObject({
      role: "gateway",
      stage: "running",
      ready: true,
      keys: [{ key: "home", tunnels: 1, inFlight: 1 }],
      calls: { started: 3, inFlight: 1, completed: 1, failed: 1, cancelled: 0, refused: 1 },
      bytes: { requests: 11, responses: 12 }
    })
    expect(now.calls.longest).toMatchObject([{ method: "/demo.Voice/Wait", key: "home", requestBytes: 1 }])
    expect(now.tunnels).toMatchObject([
      { key: "home", kind: "reverse", streams: 1, opened: 3, heldBytes: 0, stalled: 0 }
    ])
    // "x", "hello" twice; "waiting" and "HELLO".
    expect(now.tunnels).toMatchObject([{ sentBytes: 11, receivedBytes: 12 }])
    expect(now.waitingFor).toContain("/demo.Voice/Wait via home")
    expect(now.treeText).not.toContain("admin port")

    call.cancel()
    await outcome
    const cancelledOnce = async (): Promise<string> => {
      const { text } = await ask(gateway.admin, "/metrics")
      return text.includes("curfew_tunnel_calls_cancelled_total{") ? text : cancelledOnce()
    }
    const metrics = await cancelledOnce()
    for (const line of [
      "curfew_tunnel_ready 1",
      "curfew_tunnel_tunnels 1",
      "curfew_tunnel_calls_in_flight 0",
      "curfew_tunnel_calls_started_total 3",
      "curfew_tunnel_calls_refused_total 1",
      'curfew_tunnel_calls_ended_total{code="OK"} 1',
      'curfew_tunnel_calls_ended_total{code="NOT_FOUND"} 1',
      'curfew_tunnel_calls_cancelled_total{reason="ClientGone"} 1',
      'curfew_tunnel_bytes_total{direction="requests"} 11',
      "# TYPE curfew_tunnel_bytes_total counter"
    ]) {
      expect(metrics.split("\n")).toContain(line)
    }
    expect(await ask(gateway.admin, "/healthz")).toEqual({ status: 200, text: "ok\n" })
    expect(await ask(gateway.admin, "/readyz")).toEqual({ status: 200, text: "ready\n" })
    expect((await ask(gateway.admin, "/")).status).toBe(404)

    const text = await runToEnd(["status", "--admin", gateway.admin])
    expect(text.out).toMatch(/^gateway {2}running, ready, up /)
    expect(text.out).toMatch(/calls {2}0 in flight, 1 completed, 1 failed, 1 cancelled, 1 refused\n/)
    expect(text.out).toContain("cancelled by  ClientGone 1")
    expect(text.out).not.toContain("\u001b")
  })

  test("a status where nothing listens says so, and fails", async () => {
    const { code, log, out } = await runToEnd(["status", "--admin", "127.0.0.1:1", "--json"])
    expect([code, out]).toEqual([1, ""])
    expect(log).toBe(
      "Nothing answers at 127.0.0.1:1; give the --admin address that a gateway, agent or connect was started with.\n"
    )
  })

  test("health on the exposed port is the gateway's own, and a key's, unless it names an agent", async () => {
    const gateway = await startGateway(["--allow-keys", "home,office"])
    const backend = await startBackend()
    await startAgent(gateway, backend.address)
    const check = (service: string, key?: string) =>
      new Promise<string>((resolve) => {
        const metadata = new grpc.Metadata()
        if (key !== undefined) metadata.set("curfew-agent", key)
        clientOf(gateway.expose).makeUnaryRequest(
          "/grpc.health.v1.Health/Check",
          (name: string) => Buffer.concat([Buffer.from([0x0a, name.length]), Buffer.from(name)]),
          (bytes: Buffer) => bytes.toString("hex"),
          service,
          metadata,
          (error, answer) => resolve(error === null ? `${answer}` : (Code[error.code] ?? ""))
        )
      })
    const [serving, notServing] = ["0801", "0802"]
    expect(await check("")).toBe(serving)
    expect(await check("home")).toBe(serving)
    expect(await check("office")).toBe(notServing)
    expect(await check("other")).toBe("NOT_FOUND")
    // The backend has no health service, and it is the backend that says so.
    expect(await check("", "home")).toBe("UNIMPLEMENTED")
  })
})

describe("a status on a terminal", { timeout: 120_000 }, () => {
  test("is drawn again and again, and gives the terminal back at Ctrl-C", async ({ skip }) => {
    const gateway = await startGateway()
    const words = ["status", "--admin", gateway.admin, "--every", "50ms"]
    // Only a pseudo-terminal makes it live, and Python has one.
    const command = `stty rows 40 cols 120; exec ${process.execPath} -C @curfew/source ${cli} ${words.join(" ")}`
    const python = ["-c", "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)", "sh", "-c", command]
    const terminal = spawn("python3", python, { stdio: ["pipe", "pipe", "inherit"] })
    atEnd(() => void terminal.kill("SIGKILL"))
    const started = await once(terminal, "spawn").then(
      () => true,
      () => false
    )
    if (!started) skip("Install python3 to run this test")
    let out = ""
    const ended = once(terminal, "close")
    const drawn = new Promise<void>((resolve) => {
      terminal.stdout.setEncoding("utf8").on("data", (text: string) => {
        out += text
        if (out.split("gateway  running, ready").length > 3) resolve()
      })
    })
    await Promise.race([drawn, ended])
    terminal.stdin.write("\u0003")
    expect((await ended)[0]).toBe(0)
    expect(out.startsWith("\u001b[?1049h\u001b[?25l")).toBe(true)
    expect(out.trimEnd().endsWith("\u001b[?25h\u001b[?1049l")).toBe(true)
  })
})

describe("over TLS", { timeout: 120_000 }, () => {
  const file = (name: string): string =>
    fileURLToPath(new URL(`../../tunnel/test/fixtures/tls/${name}`, import.meta.url))
  const server = ["--tls-cert", file("server.crt"), "--tls-key", file("server.key")]

  test("who has no certificate of the right authority opens no tunnel, who has one does", async () => {
    const gateway = await startGateway([...server, "--tls-ca", file("authority.crt")])
    const backend = await startBackend()
    const to = ["--key", "home", "--tls-ca", file("authority.crt")]
    const stranger = start(["agent", "--gateway", gateway.listen, "--backend", backend.address, ...to])
    await stranger.says(/warn {2}not connected .*certificate/)
    await startAgent(gateway, backend.address, [
      ...to,
      "--tls-cert",
      file("client.crt"),
      "--tls-key",
      file("client.key")
    ])
    expect((await unary(clientOf(gateway.expose), "Shout", "x")).value).toBe("X")
  })

  test("a backend whose certificate does not fit costs the call, which is told so", async () => {
    const gateway = await startGateway()
    const pair = {
      cert_chain: readFileSync(file("server.crt")),
      private_key: readFileSync(file("server.key"))
    }
    const backend = await startBackend("", 0, grpc.ServerCredentials.createSsl(null, [pair]))
    await startAgent(gateway, backend.address, ["--backend-ca", file("stranger.crt")])
    const { status } = await unary(clientOf(gateway.expose), "Shout", "x")
    expect(status.code).toBe(Code.UNAVAILABLE)
    expect(status.details).toMatch(
      /^The agent is connected, but its backend at \S+ cannot be reached: .*certificate/
    )
    expect(status.details).not.toContain("Resolution")
  })

  test.each([
    ["the authorities given", ["--tls-ca", file("authority.crt"), "--backend-ca", file("authority.crt")], {}],
    [
      "those of the machine",
      ["--tls", "--backend-tls"],
      { GRPC_DEFAULT_SSL_ROOTS_FILE_PATH: file("authority.crt") }
    ]
  ])(
    "calls pass three connections, of which the first asks for a certificate, by %s",
    async (_, secure, env) => {
      const [authority, ...own] = ["authority.crt", "client.key", "client.crt"].map((name) =>
        readFileSync(file(name))
      )
      const gateway = await startGateway([
        ...server,
        ...["--expose-tls-cert", file("server.crt"), "--expose-tls-key", file("server.key")],
        ...["--expose-tls-ca", file("authority.crt")]
      ])
      const pair = {
        cert_chain: readFileSync(file("server.crt")),
        private_key: readFileSync(file("server.key"))
      }
      const backend = await startBackend("", 0, grpc.ServerCredentials.createSsl(null, [pair]))
      await startAgent(gateway, backend.address, secure, env)
      const caller = clientOf(gateway.expose, grpc.credentials.createSsl(authority, ...own))
      expect((await unary(caller, "Shout", "x")).value).toBe("X")
      expect((await collect(serverStream(caller, "Spell", "abc"))).parts).toEqual(["a", "b", "c"])
      const stranger = clientOf(gateway.expose, grpc.credentials.createSsl(authority ?? null))
      expect((await unary(stranger, "Shout", "x")).status.code).toBe(Code.UNAVAILABLE)
    }
  )
})
