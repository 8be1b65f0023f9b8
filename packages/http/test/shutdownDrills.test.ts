/** A process with a server of either half is told to end, whatever its handlers and clients do. */
import { spawn } from "node:child_process"
import { connect } from "node:net"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"

interface Ended {
  readonly code: number | null
  readonly said: string
  readonly report: string
  /** The seconds that the process says it took, from its first signal to its report. */
  readonly took: number
  /** What each client got, up to the end of its connection. */
  readonly got: ReadonlyArray<string>
}

interface Drill {
  /** The program in `fixtures`. */
  readonly server: string
  /** One client each; `""` connects and says nothing. */
  readonly paths: ReadonlyArray<string>
  readonly drain: number
  readonly force: number
  readonly signals: 1 | 2
}

/** What a busy machine may add, in seconds, to the sum of drain and force: timers that fire late, and no more. */
const slack = 3

const drill = ({ drain, force, paths, server, signals }: Drill): Effect.Effect<Ended> =>
  Effect.callback((resume) => {
    const script = fileURLToPath(server)
    const child = spawn(process.execPath, ["-C", "@curfew/source", script, String(drain), String(force)], {
      stdio: ["ignore", "pipe", "pipe"]
    })
    const got = paths.map(() => "")
    let said = ""
    let report = ""
    let open = 0
    let connected = 0
    let sent = 0
    const begun = (): boolean =>
      connected === paths.length &&
      said.split("started").length - 1 === paths.filter((path) => path.length > 1).length &&
      paths.every((path, i) => path !== "/" || got[i]?.includes("hello")) &&
      paths.every((path, i) => path !== "/stream" || got[i]?.includes("tick"))
    const look = (): void => {
      if (sent === 0 && begun()) {
        sent++
        child.kill("SIGTERM")
      } else if (sent === 1 && signals === 2 && said.includes("stopping")) {
        sent++
        child.kill("SIGINT")
      }
    }
    const enter = (port: number): void => {
      for (const [i, path] of paths.entries()) {
        open++
        const socket = connect({ host: "127.0.0.1", port }, () => {
          connected++
          if (path !== "") socket.write(`GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`)
          look()
        })
        socket.on("error", () => undefined)
        socket.on("data", (chunk: Buffer) => {
          got[i] += chunk.toString()
          look()
        })
        socket.on("close", () => {
          open--
          done()
        })
      }
    }
    let ended: (() => void) | undefined
    const done = (): void => {
      if (open === 0) ended?.()
    }
    let port: number | undefined
    child.stdout.on("data", (chunk: Buffer) => {
      said += chunk.toString()
      const found = /ready (\d+)/.exec(said)
      if (port === undefined && found !== null) {
        port = Number(found[1])
        enter(port)
      }
      look()
    })
    child.stderr.on("data", (chunk: Buffer) => {
      report += chunk.toString()
    })
    child.on("close", (code) => {
      ended = () => {
        const took = Number(/Shutdown after \S+ in ([\d.]+) s/.exec(report)?.[1] ?? Number.NaN)
        resume(Effect.succeed({ code, said, report, took, got }))
      }
      done()
    })
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const within = ({ took }: Ended, limit: number): void => expect(took).toBeLessThan(limit / 1000 + slack)

describe.each([
  ["Effect's server", import.meta.resolve("./fixtures/drill.ts")],
  ["node:http", import.meta.resolve("./fixtures/nodeDrill.ts")]
])("L43: a process with %s", (_, server) => {
  const run = (options: Omit<Drill, "server">) => Effect.runPromise(drill({ ...options, server }))

  test("L43 ends at once when it has nothing but idle connections", async () => {
    const ended = await run({ paths: ["/", ""], drain: 60_000, force: 60_000, signals: 1 })
    expect(ended.code).toBe(0)
    within(ended, 0)
    expect(ended.report).toContain("0 cancelled, 0 abandoned")
  })

  test("L43 lets a busy handler finish, and says that its connection closes", async () => {
    const ended = await run({ paths: ["/busy", "/"], drain: 60_000, force: 60_000, signals: 1 })
    expect(ended.code).toBe(0)
    within(ended, 100)
    expect(ended.got[0]).toMatch(/200 OK[\s\S]*connection: close[\s\S]*done(\r\n0\r\n\r\n)?$/i)
    expect(ended.report).toMatch(/drained +\d\.\d s +GET \/busy/)
  })

  test.each(["/forever", "/cancellable"])(
    "L43 L48 cancels %s when the drain is over: 503, and its clean-up",
    async (path) => {
      const ended = await run({ paths: [path], drain: 100, force: 60_000, signals: 1 })
      within(ended, 100)
      expect(ended.got[0]).toMatch(/^HTTP\/1.1 503 [\s\S]*the server is shutting down/i)
      expect(ended.report).toMatch(/cancelled +\d\.\d s +GET \//)
      if (path === "/cancellable") expect(ended.said).toContain("cleaned up")
    }
  )

  test.each([
    ["a hanging finalizer", "/finalizer"],
    ["a hang in a mask", "/masked"]
  ])("L43 leaves %s behind by name, and ends within drain and force", async (_, path) => {
    const ended = await run({ paths: [path, "/"], drain: 200, force: 600, signals: 1 })
    expect(ended.code).toBe(1)
    within(ended, 800)
    expect(ended.report).toMatch(new RegExp(`abandoned +\\d\\.\\d s +(GET )?${path}`))
    expect(ended.said).toContain(`record ${path} 503`)
    expect(ended.got[0]).toMatch(/^HTTP\/1.1 503 /)
  })

  test("L43 breaks a stream off, after its finalizers", async () => {
    const ended = await run({ paths: ["/stream"], drain: 100, force: 60_000, signals: 1 })
    within(ended, 100)
    expect(ended.said).toContain("stream finalized")
    expect(ended.got[0]).toContain("tick")
    expect(ended.got[0]?.endsWith("0\r\n\r\n")).toBe(false)
    expect(ended.report).toMatch(/cancelled +\d\.\d s +GET \/stream/)
  })

  test("L43 does not wait for the drain after a second signal", async () => {
    const ended = await run({
      paths: ["/forever", "/cancellable", "/stream", "/", ""],
      drain: 60_000,
      force: 60_000,
      signals: 2
    })
    within(ended, 0)
    expect(ended.got[0]).toMatch(/^HTTP\/1.1 503 /)
    expect(ended.said).toContain("cleaned up")
  })

  test.each(["/finalizer", "/masked"])(
    "L43 ends within force after a second signal, with %s",
    async (path) => {
      const ended = await run({ paths: [path], drain: 60_000, force: 600, signals: 2 })
      expect(ended.code).toBe(1)
      within(ended, 600)
      expect(ended.report).toMatch(new RegExp(`abandoned +\\d\\.\\d s +(GET )?${path}`))
      expect(ended.said).toContain(`record ${path} 503`)
    }
  )
})
