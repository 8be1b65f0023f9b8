/**
 * A server such as there are many: authentication, an inner network, a table of routes, and one route with a long loop.
 * What makes it notice that a client has gone is marked: DETECT, BREAK, CLEAN UP.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { catchCancelled, fromNode, nodeEdge } from "@curfew/http"
import { describe } from "@curfew/reason"
import { Report } from "@curfew/shutdown"
import { processSignals } from "@curfew/shutdown/Node"
import { matching, readFlags, wholeNumber } from "./flags.ts"
import { readUsers, type User } from "./users.ts"

const flags = readFlags({
  port: { type: "string", default: "8080" },
  inner: { type: "string", default: "8081" },
  users: { type: "string", default: "ada=secret" }
})
const ports = {
  everybody: wholeNumber("port", flags.port, 65_535),
  "the inner network": wholeNumber("inner", flags.inner, 65_535)
}
const listed = /^[^=,]+=[^=,]+(,[^=,]+=[^=,]+)*$/
const userOf = readUsers(
  matching("users", flags.users, listed, "names and tokens such as ada=secret,bob=word"),
  1e12
)

type Handler = (request: IncomingMessage, response: ServerResponse, url: URL, user: User) => unknown

const json = (response: ServerResponse, status: number, body: unknown): void =>
  void response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(body)}\n`)

// What the requests share: a shutdown that Ctrl-C and SIGTERM begin, and a record of each request that is watched.
const edge = nodeEdge({
  drain: "20 seconds",
  force: "8 seconds",
  signals: processSignals(),
  onStopped: () => {}, // the report at the end says more
  onRecord: ({ id, method, reason, status, url }) =>
    console.log(`${id}  ${method} ${url} ${status}${reason === undefined ? "" : `: ${describe(reason)}`}`)
})

/**
 * Counts primes, for as long as somebody waits for them. Cancelled, the clean-up has run, and what is to be answered has
 * been: 503 at a shutdown, to nobody else anything. So nobody need be told of it.
 */
const primes: Handler = catchCancelled(async (request, response, url, user) => {
  const below = Number(url.searchParams.get("below"))
  if (!Number.isSafeInteger(below) || below < 2) return json(response, 400, { problem: "Give ?below=1000." })
  if (below > user.credit) return json(response, 429, { problem: `Your credit is ${user.credit}.` })
  // DETECT: from here on the request is watched. Its client's leaving, or the end of the server, is the end of this block.
  await using exchange = fromNode(request, response, { edge, route: "/primes", policy: "cancel" })

  let [count, n] = [0, 2]
  // CLEAN UP: only when it did not get to its end, with all that is in reach here. Set up before there is anything to clean
  // up: in a request that is over nothing can be, and the block is left here.
  exchange.onCancel((reason) => {
    user.credit += below - n
    console.log(`${exchange.id}  ${user.name} gets ${below - n} back, stopped at ${n}: ${describe(reason)}`)
  })
  user.credit -= below
  console.log(`${exchange.id}  ${user.name} begins, ${below}`)
  for (; n < below; n++) {
    // BREAK: the loop is left here. Every five milliseconds others get their turn, and node hears who has gone.
    await exchange.checkpoint()
    if (isPrime(n)) count++
  }
  json(response, 200, { count })
})

const isPrime = (n: number): boolean => {
  for (let divisor = 2; divisor * divisor <= n; divisor++) if (n % divisor === 0) return false
  return true
}

const credit: Handler = (_request, response, _url, user) => json(response, 200, { credit: user.credit })

const status: Handler = (_request, response) => json(response, 200, { inFlight: edge.inFlight })

/** The routes, and which of them are for the inner network alone. */
const routes: Readonly<Record<string, { readonly handle: Handler; readonly inner?: boolean }>> = {
  "GET /primes": { handle: primes },
  "POST /primes": { handle: primes },
  "GET /credit": { handle: credit },
  "GET /status": { handle: status, inner: true }
}

const serve = (inner: boolean) =>
  createServer(async (request, response) => {
    try {
      const url = new URL(request.url ?? "/", "http://here")
      const key = `${request.method} ${url.pathname}`
      const route = Object.hasOwn(routes, key) ? routes[key] : undefined
      // The inner network needs no token; to everybody else its routes do not exist.
      if (route === undefined || (route.inner === true && !inner))
        return json(response, 404, { problem: "There is no such route." })
      const user = inner ? { name: "inner network", credit: 1e15 } : userOf(request.headers.authorization)
      if (user === undefined) return json(response, 401, { problem: "Send a token: authorization: Bearer …" })
      await route.handle(request, response, url, user)
    } catch (error) {
      console.error(error)
      if (response.headersSent) response.destroy()
      else json(response, 500, { problem: "That is a fault of the server." })
    }
  })

const listen = (name: keyof typeof ports, host: string, server: Server): void => {
  edge.attach(server)
  server.once("error", ({ message }) => {
    console.error(message)
    process.exitCode = 1
    void edge.shutdown()
  })
  server.listen(ports[name], host, () =>
    console.log(`Listens to ${name} on port ${(server.address() as AddressInfo).port}`)
  )
}
listen("everybody", "0.0.0.0", serve(false))
listen("the inner network", "127.0.0.1", serve(true))

console.log(Report.toText(await edge.ended))
