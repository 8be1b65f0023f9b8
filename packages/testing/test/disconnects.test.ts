import { CancelReason, currentReason } from "@curfew/reason"
import { awaitPeerGone, Endpoint, type OnDisconnect, PeerSignal } from "@curfew/request"
import { inspect, Owner, TaskScope } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { describe, expect, test } from "vitest"
import type { Departure, DisconnectDriver, DisconnectEndpoint, Policy } from "../src/Disconnects.ts"
import { disconnectMatrix } from "../src/disconnectMatrix.ts"
import { type Exchange, nodeHttp } from "../src/http.ts"
import { type HttpLink, httpDisconnects } from "../src/httpDisconnects.ts"

interface Link extends HttpLink {
  readonly open: () => number
}

/** A listening server as a link, with a count of its sockets. */
const linkOf = (server: Effect.Success<ReturnType<ReturnType<typeof nodeHttp>>>): Link => {
  let open = 0
  server.on("connection", (socket) => {
    open++
    socket.on("close", () => open--)
  })
  const address = server.address()
  return { port: typeof address === "object" && address !== null ? address.port : 0, open: () => open }
}

const self = <A, E, R>(effect: Effect.Effect<A, E, R>) => effect
const write = (exchange: Exchange) => (part: string) => Effect.sync(() => void exchange.response.write(part))

const policyOf = ({ grace, policy }: DisconnectEndpoint): OnDisconnect =>
  policy === "grace" ? { grace } : policy === "stock" ? "shield" : policy

/** node:http with `Endpoint.run` behind it: what an edge of this project does. */
const served = (endpoint: DisconnectEndpoint) =>
  Effect.gen(function* () {
    const owner = yield* TaskScope.make({ name: "server" })
    const handle = (exchange: Exchange) => {
      const peer = PeerSignal.makeUnsafe()
      // A socket that is not read from says nothing of its end: what nobody reads is thrown away.
      exchange.request.resume()
      exchange.onGone(() => peer.goneUnsafe(CancelReason.ClientGone({ transport: "http1" })))
      exchange.response.on("finish", () => peer.completeUnsafe())
      const handler = endpoint.handler({
        write: write(exchange),
        peerGone: Effect.map(awaitPeerGone, ({ _tag }) => _tag),
        reason: Effect.map(
          currentReason,
          Option.match({ onNone: () => "none", onSome: ({ _tag }) => _tag as string })
        )
      })
      const call = { method: "GET /", kind: "request", transport: "http1", peer, owner } as const
      return Endpoint.run(handler, { ...call, policy: policyOf(endpoint) }).pipe(
        Effect.map((answer) => (answer._tag === "Value" ? exchange.response.end(answer.value) : undefined)),
        Effect.provideService(Owner, owner),
        Effect.ensuring(endpoint.edgeDone)
      )
    }
    return linkOf(yield* nodeHttp(handle, { whenGone: "tell" })(self))
  })

const plain = (whenGone: "interrupt" | "tell") => (endpoint: DisconnectEndpoint) =>
  Effect.map(
    nodeHttp(
      (exchange) =>
        endpoint.handler({ write: write(exchange), peerGone: undefined, reason: undefined }).pipe(
          Effect.map((value) => exchange.response.end(value)),
          Effect.ensuring(endpoint.edgeDone)
        ),
      { whenGone }
    )(self),
    linkOf
  )

const connections = ({ open }: Link) => open()

const drivers: ReadonlyArray<DisconnectDriver<Link>> = [
  {
    name: "node:http with Endpoint.run",
    policies: ["cancel", "shield", "grace", "detach"],
    serve: served,
    connections,
    left: Effect.map(inspect, ({ roots }) =>
      roots.map(({ name }) => name).filter((name) => name === "server")
    )
  },
  {
    name: "node:http that interrupts",
    policies: ["stock"],
    stock: "interrupted",
    // Its parser waits for somebody to read the body, and its socket with it.
    hears: (departure) => !departure.includes("body that nobody reads"),
    serve: plain("interrupt"),
    connections
  },
  { name: "node:http that tells nobody", policies: ["stock"], serve: plain("tell"), connections }
]

describe.each(drivers)("L39, L40: the disconnect matrix over $name", { timeout: 60_000 }, (driver) => {
  const cases = disconnectMatrix(driver, httpDisconnects).map(({ name, run }) => [name, run] as const)
  test.each(cases)("%s", async (_, run) => {
    await Effect.runPromise(run)
  })
})

describe("the matrix finds a planted fault", { timeout: 60_000 }, () => {
  const departure = httpDisconnects.filter(({ name }) => name.endsWith("runs, by a reset"))
  const problems = async (
    policies: ReadonlyArray<Policy>,
    plant: (endpoint: DisconnectEndpoint) => ReturnType<typeof served>,
    departures: Iterable<Departure<HttpLink>> = departure
  ): Promise<string> => {
    const driver = { name: "planted", policies, serve: plant, connections }
    const [first] = disconnectMatrix(driver, departures, { patience: "50 millis" })
    if (first === undefined) throw new Error("no case")
    return (await Effect.runPromise(Effect.flip(first.run))).problems.join("; ")
  }

  test("a shielded handler that is interrupted", async () => {
    const plant = (endpoint: DisconnectEndpoint) => served({ ...endpoint, policy: "cancel" })
    expect(await problems(["shield"], plant)).toContain("the handler ended when its peer had left")
  })

  test("a cancellable handler that runs on", async () => {
    const plant = (endpoint: DisconnectEndpoint) => served({ ...endpoint, policy: "shield" })
    expect(await problems(["cancel"], plant)).toContain("the handler was not interrupted")
  })

  test("a grace that is too short, and one that is too long", async () => {
    const short = (endpoint: DisconnectEndpoint) => served({ ...endpoint, policy: "cancel" })
    expect(await problems(["grace"], short)).toContain("the handler ended before the grace did")
    const long = (endpoint: DisconnectEndpoint) => served({ ...endpoint, policy: "shield" })
    expect(await problems(["grace"], long)).toContain("the handler was not interrupted")
  })

  test("an edge that waits for a detached handler, and one that leaves a shielded one", async () => {
    const waits = (endpoint: DisconnectEndpoint) => served({ ...endpoint, policy: "shield" })
    expect(await problems(["detach"], waits)).toContain("the edge still waits for a detached handler")
    const leaves = (endpoint: DisconnectEndpoint) => served({ ...endpoint, policy: "detach" })
    expect(await problems(["shield"], leaves)).toContain("the edge did not wait for a shielded handler")
  })

  test("a server that never hears of it", async () => {
    const deaf = (endpoint: DisconnectEndpoint) =>
      served({
        ...endpoint,
        handler: (call) => endpoint.handler({ ...call, peerGone: Effect.never })
      })
    expect(await problems(["shield"], deaf)).toContain("the case does not end")
  })

  test("a wrong reason", async () => {
    const wrong = (endpoint: DisconnectEndpoint) =>
      served({
        ...endpoint,
        handler: (call) => endpoint.handler({ ...call, reason: Effect.succeed("Unknown") })
      })
    expect(await problems(["cancel"], wrong)).toContain("interrupted for Unknown, not for ClientGone")
  })

  test("a fiber that is left", async () => {
    const leaves = (endpoint: DisconnectEndpoint) =>
      served({
        ...endpoint,
        handler: (call) => Effect.andThen(Effect.forkDetach(Effect.never), endpoint.handler(call))
      })
    expect(await problems(["cancel"], leaves)).toContain("1 fiber is left")
  })

  test("a client that got something else", async () => {
    const other = departure.map((one) => ({ ...one, gets: "answer" }))
    expect(await problems(["cancel"], served, other)).toContain(`the client got "" in place of "answer"`)
  })
})
