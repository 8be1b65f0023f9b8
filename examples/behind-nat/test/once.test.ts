import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { connect } from "node:net"
import { fileURLToPath } from "node:url"
import { describe, expect, test } from "vitest"

const main = fileURLToPath(new URL("../src/main.ts", import.meta.url))

const run = (...words: ReadonlyArray<string>) =>
  new Promise<{ readonly code: number; readonly out: string; readonly log: string }>((resolve) => {
    execFile(process.execPath, ["-C", "@curfew/source", main, ...words], (error, out, log) =>
      resolve({ code: error === null ? 0 : Number(error.code), out, log })
    )
  })

/** The demonstration as a terminal starts it, in a group of its own. */
const staysUp = async () => {
  const running = spawn(process.execPath, ["-C", "@curfew/source", main], { detached: true })
  let out = ""
  await new Promise<void>((resolve) => {
    running.stdout.on("data", (chunk: Buffer) => {
      out += chunk
      if (out.includes("it stays up")) resolve()
    })
  })
  return { running, out: () => out }
}

describe("the demonstration of curfew-tunnel", { timeout: 180_000 }, () => {
  test("ends with what it has shown as JSON, and every part ends in order", async () => {
    const { code, log, out } = await run("--once")
    expect(log).toBe("")
    expect(JSON.parse(out.trimEnd().split("\n").at(-1) ?? "")).toMatchObject({
      ok: true,
      answered: true,
      stoppedAtTheService: true,
      calls: { started: 2, completed: 1, cancelled: 1, inFlight: 0, refused: 1 },
      exitCodes: { agent: 0, gateway: 0, service: 0 }
    })
    expect(code).toBe(0)
  })

  test("that is killed leaves no program behind", async () => {
    const { out, running } = await staysUp()
    const ports = [/service .* listens on \S+:(\d+)/, /gateway ready .* listen=\S+:(\d+)/].map(
      (pattern) => pattern.exec(out())?.[1] ?? "none"
    )
    const gone = ports.map(async (port) => {
      const socket = connect(Number(port), "127.0.0.1")
      await once(socket, "connect")
      return once(
        socket.resume().on("error", () => undefined),
        "close"
      )
    })
    running.kill("SIGKILL")
    await Promise.all(gone)
  })

  test("ends in order at Ctrl-C, which a terminal sends to every program that it started", async () => {
    const { out, running } = await staysUp()
    process.kill(-(running.pid ?? Number.NaN), "SIGINT")
    expect((await once(running, "close"))[0]).toBe(0)
    for (const name of ["service", "gateway", "agent"]) {
      expect(out()).toMatch(
        new RegExp(`^${name} +\\| Shutdown after \\w+ in .* 0 cancelled, 0 abandoned$`, "m")
      )
    }
    expect(out()).not.toContain("moved on by a signal")
  })

  test("says which flag it does not know", async () => {
    expect(await run("--wrong")).toEqual({
      code: 2,
      out: "",
      log: 'There is no flag "--wrong"; use --once or --help.\n'
    })
  })
})
