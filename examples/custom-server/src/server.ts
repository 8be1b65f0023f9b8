/** A line is a call, answered by a line with `OK` or `ERR` in front. */
import { type AddressInfo, createServer, type Socket } from "node:net"
import { addAbortSignal } from "node:stream"
import { CancelReason, describe } from "@curfew/reason"
import { Endpoint, PeerSignal, policyOf, send } from "@curfew/request"
import { type Owner, TaskScope } from "@curfew/scope"
import { Shutdown } from "@curfew/shutdown"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/** Gives what stands behind `OK`, or fails with what stands behind `ERR`. Its mark says what its client's leaving does. */
export type Command = (argument: string) => Effect.Effect<string, string, Scope.Scope>
type Commands = ReadonlyMap<string, Command>
type Log = (line: string) => void

/** Gives the port. Each connection is a task, and none is left when the surrounding `Scope` has closed. */
export const listen = Effect.fnUntraced(function* (port: number, commands: Commands, log: Log) {
  const connections = yield* TaskScope.make({ name: "connections" })
  const spawn = yield* TaskScope.makeRuntime<Owner>(connections)
  const server = createServer((socket) => {
    socket.on("error", () => {}) // `close` follows, and says all that matters
    if (spawn(serve(socket, commands, log)) === undefined) socket.destroy()
  })
  server.maxConnections = 1_000
  const listening = Effect.callback<void, Error>((resume) => {
    server.once("error", (error) => resume(Effect.fail(error)))
    server.listen(port, "127.0.0.1", () => resume(Effect.void))
  })
  const close = Effect.sync(() => server.close())
  yield* Effect.acquireRelease(listening, () => close)
  yield* Shutdown.onStop("listener", close)
  yield* Shutdown.onDrain("connections", connections.drain())
  return (server.address() as AddressInfo).port
})

const serve = Effect.fnUntraced(function* (socket: Socket, commands: Commands, log: Log) {
  yield* Effect.addFinalizer(() => hangUp(socket))
  const lines = linesOf(socket)
  yield* Shutdown.onStop("connection", Queue.end(lines)) // what came before is still answered
  const answering = Stream.runForEach(Stream.fromQueue(lines), (line) => answer(socket, commands, line, log))
  yield* Effect.catch(answering, (problem) => write(socket, `ERR ${problem}`))
}, Effect.scoped)

/** Reads whatever comes, within limits: a paused socket would not say that its peer has gone. */
const linesOf = (socket: Socket): Queue.Queue<string, string | Cause.Done> => {
  const lines = Effect.runSync(Queue.dropping<string, string | Cause.Done>(64))
  const stop = (problem: string) => {
    Queue.failCauseUnsafe(lines, Cause.fail(problem))
    socket.removeAllListeners("data").resume()
  }
  const take = (line: string) => {
    if (line.length > 1_024) stop("a line has at most 1024 characters")
    else if (!Queue.offerUnsafe(lines, line.trim())) stop("too many lines at once")
  }
  let rest = ""
  socket.setEncoding("utf8").on("data", (chunk: string) => {
    const parts = (rest + chunk).split("\n")
    rest = parts.pop() ?? ""
    parts.forEach(take)
    if (rest.length > 1_024) take(rest)
  })
  socket.on("close", () => Queue.endUnsafe(lines))
  return lines
}

const answer = Effect.fnUntraced(function* (socket: Socket, commands: Commands, line: string, log: Log) {
  const [name = "", argument = ""] = line.split(/ (.*)/, 2)
  const command = commands.get(name) ?? (() => Effect.fail(`write ${[...commands.keys()].join(" or ")}`))
  const ok = Effect.map(Effect.scoped(command(argument)), (value) => `OK ${value}`)
  const said = Effect.catch(ok, (problem) => Effect.succeed(`ERR ${problem}`))
  const peer = yield* peerOf(socket)
  const call = { method: name, kind: "request", transport: "tcp", policy: policyOf(command), peer } as const
  const outcome = yield* Endpoint.run(said, call)
  if (outcome._tag === "Dropped") return log(`${line}: dropped, ${describe(outcome.reason)}`)
  if (outcome._tag === "Failure") yield* Effect.logError(outcome.cause)
  const why = outcome._tag === "Cancelled" ? describe(outcome.reason) : "a fault of the server"
  const text = outcome._tag === "Value" ? outcome.value : `ERR ${why}`
  log(`${line}: ${text}`)
  yield* send(write(socket, text), { peer })
  yield* peer.complete
}, Effect.scoped)

/** Who waits for the answer. The end of its input is its leaving: a killed process says no more than that. */
const peerOf = Effect.fnUntraced(function* (socket: Socket) {
  const peer = PeerSignal.makeUnsafe()
  const left = () => void peer.goneUnsafe(CancelReason.ClientGone({ transport: "tcp" }))
  if (socket.readableEnded || socket.destroyed) left()
  socket.on("end", left).on("close", left)
  yield* Effect.addFinalizer(() => Effect.sync(() => socket.off("end", left).off("close", left)))
  return peer
})

const write = (socket: Socket, line: string): Effect.Effect<void> =>
  Effect.callback((resume) => void socket.write(`${line}\n`, () => resume(Effect.void)))

/** The other end has a second to take the last line and to hang up as well. */
const hangUp = (socket: Socket): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (socket.closed) return resume(Effect.void)
    socket.once("close", () => resume(Effect.void)).end()
    addAbortSignal(AbortSignal.timeout(1_000), socket)
  })
