/**
 * Counts what a caller that leaves does to a tunnel server, side by side: in the Go library, in the Python library, and
 * here. One and the same script speaks to each of them in frames, so that what differs is the server's doing:
 *
 *   npm run seven-steps -- --events 50
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync } from "node:fs"
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net"
import { cpus, tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as later } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import {
  Client,
  type ClientDuplexStream,
  status as Code,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream
} from "@grpc/grpc-js"
import { loadSync } from "@grpc/proto-loader"
import { build, GoProcess } from "./goPeer.ts"
import { definition } from "./testService.ts"

const here = fileURLToPath(new URL("..", import.meta.url))
const { values } = parseArgs({ options: { events: { type: "string", default: "50" } } })
const events = Number(values.events)
if (!Number.isInteger(events) || events < 1) {
  console.error(`--events has to be a whole number above zero, not "${values.events}".`)
  process.exit(2)
}

const tunnelService = loadSync(join(here, "proto/tunnel.proto"), { keepCase: true, longs: Number })[
  "grpctunnel.v1.TunnelService"
] as unknown as typeof definition
const [openTunnel, openReverse] = [tunnelService["OpenTunnel"], tunnelService["OpenReverseTunnel"]]
if (openTunnel === undefined || openReverse === undefined) throw new Error("proto/tunnel.proto is incomplete")

interface ServerFrame {
  readonly stream_id: number
  readonly close_stream?: { readonly status?: { readonly code?: number } | null } | null
}

interface Counts {
  readonly started: number
  readonly told: number
  readonly completed: number
  readonly tasks: number
}

/** One outer stream, as the tunnel client has it. */
interface Opened {
  readonly id: number
  readonly frames: ReadonlyArray<ServerFrame>
  readonly send: (frame: object) => void
  /** Ends the outer stream in good order. */
  readonly end: () => void
  /** Ends the outer call with an error. */
  readonly fail: () => void
  /** Cuts the connection, as one cuts a cable. */
  readonly cut: () => void
  readonly close: () => void
}

/** How the caller leaves, and the codes that its call may end with, if the server still says one. */
interface Leaving {
  readonly name: string
  readonly codes: ReadonlyArray<number>
  readonly timeout?: string
  readonly leave: (tunnel: Opened) => void
}

/** The call is cancelled, or its tunnel is lost: both are true. */
const gone = [Code.CANCELLED, Code.UNAVAILABLE]

const leavings: ReadonlyArray<Leaving> = [
  {
    name: "cancels; the tunnel goes on",
    codes: [Code.CANCELLED],
    leave: ({ id, send }) => send({ stream_id: id, cancel: {} })
  },
  {
    name: "cancels; the outer stream ends",
    codes: [Code.CANCELLED],
    leave: ({ end, id, send }) => {
      send({ stream_id: id, cancel: {} })
      end()
    }
  },
  {
    name: "cancels; the outer call fails",
    codes: [Code.CANCELLED],
    leave: ({ fail, id, send }) => {
      send({ stream_id: id, cancel: {} })
      setImmediate(fail)
    }
  },
  { name: "leaves; the outer stream ends", codes: gone, leave: ({ end }) => end() },
  { name: "leaves; the outer call fails", codes: gone, leave: ({ fail }) => fail() },
  { name: "is gone with its connection", codes: gone, leave: ({ cut }) => cut() },
  {
    name: "has a deadline that passes",
    codes: [Code.DEADLINE_EXCEEDED],
    timeout: "20m",
    leave: () => undefined
  }
]

/** Long enough that every caller leaves before its handler completes. */
const delay = 300

const complaint = /^(Traceback \(most recent call last\)|panic:|Error: |.*\bERROR\b)/gm

class Peer {
  readonly process: GoProcess
  private seen = 0
  said = ""

  constructor(program: string, args: ReadonlyArray<string>, environment: Record<string, string> = {}) {
    this.process = new GoProcess(program, args, environment)
  }

  async counts(): Promise<Counts> {
    this.seen = this.errors
    this.said += this.process.output
    this.process.output = ""
    this.process.write("count\n")
    const [, counts] = await this.process.said(/^counts (.*)$/m)
    return JSON.parse(counts as string)
  }

  /** Errors that it logged, and exceptions that nobody handled. */
  get errors(): number {
    return this.seen + [...this.process.output.matchAll(complaint)].length
  }
}

let lastId = 0

/** Passes connections on, so that they can be cut. */
const relayTo = (
  port: number
): Promise<{ readonly port: number; readonly cut: () => void; readonly close: () => void }> =>
  new Promise((resolve) => {
    const sockets = new Set<Socket>()
    const cut = (): void => {
      for (const socket of sockets) socket.destroy()
      sockets.clear()
    }
    const relay = createServer((near) => {
      const far = createConnection(port, "127.0.0.1")
      for (const [socket, other] of [
        [near, far],
        [far, near]
      ] as const) {
        sockets.add(socket)
        socket.setNoDelay(true)
        socket.on("error", () => other.destroy())
        socket.on("close", () => {
          sockets.delete(socket)
          other.destroy()
        })
        socket.pipe(other)
      }
    })
    const close = (): void => {
      cut()
      relay.close()
    }
    relay.listen(0, "127.0.0.1", () => resolve({ port: (relay.address() as AddressInfo).port, cut, close }))
  })

/** Starts the call that will be left. */
const request = (send: (frame: object) => void, timeout: string | undefined): number => {
  // One tunnel after the other goes on counting: the Python library remembers ids across tunnels.
  const id = ++lastId
  const data = definition["Unary"]?.requestSerialize({ delay_millis: delay }) as Buffer
  const md = timeout === undefined ? {} : { "grpc-timeout": { val: [timeout] } }
  send({
    stream_id: id,
    new_stream: {
      method_name: "/grpchantesting.TestService/Unary",
      request_headers: { md },
      initial_window_size: 65_536,
      protocol_revision: 1
    }
  })
  send({ stream_id: id, request_message: { size: data.length, data } })
  send({ stream_id: id, half_close: {} })
  return id
}

type Open = (timeout: string | undefined) => Promise<Opened>

const negotiating = (): Metadata => {
  const headers = new Metadata()
  headers.set("grpctunnel-negotiate", "on")
  return headers
}

/** Collects what the tunnel server says, and waits for its settings. */
const listenTo = async (outer: {
  on(event: "data", listener: (frame: ServerFrame) => void): unknown
}): Promise<ReadonlyArray<ServerFrame>> => {
  const frames: Array<ServerFrame> = []
  await new Promise<void>((resolve) => {
    outer.on("data", (frame) => {
      frames.push(frame)
      resolve()
    })
  })
  return frames
}

const forward =
  (port: number): Open =>
  async (timeout) => {
    const relay = await relayTo(port)
    const client = new Client(`127.0.0.1:${relay.port}`, credentials.createInsecure())
    const outer = client.makeBidiStreamRequest(
      openTunnel.path,
      openTunnel.requestSerialize,
      openTunnel.responseDeserialize as (bytes: Buffer) => ServerFrame,
      negotiating()
    ) as ClientDuplexStream<object, ServerFrame>
    outer.on("error", () => undefined)
    const frames = await listenTo(outer)
    const send = (frame: object): void => void outer.write(frame)
    return {
      id: request(send, timeout),
      frames,
      send,
      end: () => void outer.end(),
      fail: () => outer.cancel(),
      cut: relay.cut,
      close: () => {
        client.close()
        relay.close()
      }
    }
  }

/** Waits for the tunnel server to dial. */
const reverse = async (): Promise<{
  readonly address: string
  readonly open: Open
  readonly close: () => void
}> => {
  const server = new Server()
  const dialled: Array<ServerDuplexStream<ServerFrame, object>> = []
  let noticed = (): void => undefined
  server.addService(
    { OpenReverseTunnel: openReverse },
    {
      OpenReverseTunnel: (outer: ServerDuplexStream<ServerFrame, object>) => {
        outer.on("error", () => undefined)
        dialled.push(outer)
        noticed()
      }
    }
  )
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error)
    )
  })
  const relay = await relayTo(port)
  const open: Open = async (timeout) => {
    while (dialled.length === 0)
      await new Promise<void>((resolve) => {
        noticed = resolve
      })
    const outer = dialled.shift() as ServerDuplexStream<ServerFrame, object>
    const settings = listenTo(outer)
    outer.sendMetadata(negotiating())
    const frames = await settings
    const send = (frame: object): void => void outer.write(frame)
    return {
      id: request(send, timeout),
      frames,
      send,
      end: () => void outer.end(),
      fail: () => void outer.emit("error", { code: Code.UNAVAILABLE, details: "leaving" }),
      cut: relay.cut,
      close: () => void outer.end()
    }
  }
  const close = (): void => {
    relay.close()
    server.forceShutdown()
  }
  return { address: `127.0.0.1:${relay.port}`, open, close }
}

const until = async (what: () => Promise<boolean>, millis: number): Promise<boolean> => {
  for (const end = performance.now() + millis; performance.now() < end; await later(10))
    if (await what()) return true
  return false
}

interface Row {
  readonly leaving: string
  readonly errors: number
  readonly orphans: number
  readonly wrong: string
  readonly useless: number
  readonly told: number
}

const measure = async (peer: Peer, open: Open, leaving: Leaving): Promise<Row> => {
  // A call that nobody leaves, so that everything that starts once has started.
  const warm = await open(undefined)
  await until(async () => warm.frames.some(({ close_stream }) => close_stream != null), 5_000)
  warm.end()
  warm.close()
  await later(500)
  const before = await peer.counts()
  const errors = peer.errors
  let wrong = 0
  let useless = 0
  const codes = new Set<number>()
  for (let count = 1; count <= events; count++) {
    const tunnel = await open(leaving.timeout)
    await until(async () => (await peer.counts()).started === before.started + count, 5_000)
    const earlier = tunnel.frames.length
    leaving.leave(tunnel)
    await until(async () => (await peer.counts()).completed === before.completed + count, 5_000)
    await later(20)
    const late = tunnel.frames.slice(earlier).filter(({ stream_id }) => stream_id === tunnel.id)
    const closes = late.filter(({ close_stream }) => close_stream != null)
    for (const { close_stream } of closes) codes.add(close_stream?.status?.code ?? 0)
    wrong += closes.filter(
      ({ close_stream }) => !leaving.codes.includes(close_stream?.status?.code ?? 0)
    ).length
    if (leaving.timeout === undefined) useless += late.length
    tunnel.end()
    tunnel.close()
  }
  await until(async () => (await peer.counts()).tasks <= before.tasks, 3_000)
  const after = await peer.counts()
  return {
    leaving: leaving.name,
    errors: peer.errors - errors,
    orphans: Math.max(0, after.tasks - before.tasks),
    wrong: wrong === 0 ? "0" : `${wrong}, with ${[...codes].map((code) => Code[code]).join(" and ")}`,
    useless,
    told: after.told - before.told
  }
}

/** A Python with a version of the library, in a folder of its own; a sentence when it cannot be had. */
const python = (version: string): { readonly program: string } | string => {
  const base = process.env["CURFEW_PYTHON_ENVS"] ?? mkdtempSync(join(tmpdir(), "curfew-python-"))
  const folder = join(base, version)
  const program = join(folder, "bin/python")
  if (spawnSync(program, ["-c", "import grpctunnel"]).status === 0) return { program }
  if (spawnSync("python3", ["-m", "venv", folder]).status !== 0)
    return "there is no Python 3.11 with venv here"
  const { status } = spawnSync(program, ["-m", "pip", "install", "-q", `grpctunnel-py==${version}`])
  return status === 0 ? { program } : "its package could not be installed with pip here"
}

const pythonPeer = (
  version: string
): readonly [string, ((environment: Record<string, string>) => Peer) | string] => {
  const found = python(version)
  const start = (program: string) => (environment: Record<string, string>) =>
    new Peer(program, [join(here, "python/steps.py")], environment)
  return [`Python, grpctunnel-py ${version}`, typeof found === "string" ? found : start(found.program)]
}

const programs = build()
const candidates: ReadonlyArray<readonly [string, ((environment: Record<string, string>) => Peer) | string]> =
  [
    [
      "Go, github.com/jhump/grpctunnel",
      typeof programs === "string"
        ? programs
        : (environment) => new Peer(programs.peer, [], { CURFEW_ROLE: "steps", ...environment })
    ],
    pythonPeer("0.1.0"),
    pythonPeer("0.3.0"),
    [
      "TypeScript, @curfew/tunnel",
      (environment) =>
        new Peer(process.execPath, ["-C", "@curfew/source", join(here, "src/stepsServer.ts")], environment)
    ]
  ]

console.log(`${events} events each, handlers of ${delay} ms; ${cpus().length} × ${cpus()[0]?.model}`)
const cells = (...columns: ReadonlyArray<string | number>) => `| ${columns.join(" | ")} |`
for (const [name, start] of candidates) {
  console.log(`\n### ${name}\n`)
  if (typeof start === "string") {
    console.log(`Not measured: ${start}`)
    continue
  }
  console.log(
    cells("tunnel", "the caller", "errors", "tasks left", "wrong codes", "frames for nobody", "handlers told")
  )
  console.log(cells("---", "---", "--:", "--:", "--:", "--:", "--:"))
  for (const direction of ["forward", "reverse"]) {
    lastId = 0
    const waiting = direction === "reverse" ? await reverse() : undefined
    const peer = start(waiting === undefined ? {} : { CURFEW_ADDRESS: waiting.address })
    const open = waiting?.open ?? forward(Number((await peer.process.said(/port (\d+)/))[1]))
    for (const leaving of leavings) {
      const { errors, orphans, told, useless, wrong } = await measure(peer, open, leaving)
      console.log(cells(direction, leaving.name, errors, orphans, wrong, useless, `${told} of ${events}`))
    }
    peer.process.kill()
    waiting?.close()
    if (process.env["CURFEW_SHOW_OUTPUT"] !== undefined) console.log(peer.said + peer.process.output)
  }
}
process.exit()
