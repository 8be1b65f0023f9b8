/**
 * The admin port: status, metrics and health over HTTP, for people and their tools on this machine.
 *
 * **Invariants**
 * 1. It only answers: nothing that is asked here changes anything.
 * 2. It is the last to close, so that a shutdown can be watched to its end.
 * 3. Each answer is a task of the port's own scope, which ends with it.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import { TaskScope } from "@curfew/scope"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Desk } from "./desk.ts"
import { makeMetrics } from "./metrics.ts"
import { type Mistake, mistake } from "./mistake.ts"
import { adminScope, snapshot } from "./snapshot.ts"
import type { Address } from "./values.ts"

interface Answer {
  readonly status: number
  readonly type: string
  readonly body: string
}

const plain = (status: number, body: string): Answer => ({
  status,
  type: "text/plain; charset=utf-8",
  body: `${body}\n`
})

const write = (response: ServerResponse, { body, status, type }: Answer): void => {
  response.writeHead(status, { "content-type": type, "cache-control": "no-store" })
  response.end(body)
}

const problems: Readonly<Record<string, string>> = {
  EADDRINUSE: "the port is in use; choose another one, or off",
  EACCES: "this user may not listen there; choose a port from 1024 on",
  EADDRNOTAVAIL: "this machine has no such address; choose 127.0.0.1",
  ENOTFOUND: "the host is not known; choose 127.0.0.1"
}

const listenOn = (server: Server, at: Address): Effect.Effect<number, Mistake> =>
  Effect.callback((resume) => {
    server.once("error", ({ code = "", message }: NodeJS.ErrnoException) => {
      resume(Effect.fail(mistake(`--admin ${at.text} cannot be listened on: ${problems[code] ?? message}.`)))
    })
    server.listen(at.port, at.host.replace(/^\[|\]$/g, ""), () => {
      const bound = server.address()
      resume(Effect.succeed(typeof bound === "object" && bound !== null ? bound.port : at.port))
    })
  })

/** Answers until the scope ends; gives the port. */
export const admin = (at: Address, desk: Desk): Effect.Effect<number, Mistake, Scope.Scope> =>
  Effect.gen(function* () {
    const metrics = makeMetrics(desk)
    const answer = (path: string): Effect.Effect<Answer> =>
      Effect.gen(function* () {
        if (path === "/healthz") return plain(200, "ok")
        const now = yield* snapshot(desk)
        if (path === "/readyz") return plain(now.ready ? 200 : 503, now.ready ? "ready" : "not ready")
        if (path === "/metrics") {
          return { status: 200, type: "text/plain; version=0.0.4; charset=utf-8", body: yield* metrics(now) }
        }
        if (path === "/status")
          return { status: 200, type: "application/json", body: `${JSON.stringify(now)}\n` }
        return plain(404, "There is /status, /metrics, /healthz and /readyz.")
      })
    const tasks = yield* TaskScope.make({ name: adminScope })
    const spawn = yield* TaskScope.makeRuntime(tasks)
    const handle = (request: IncomingMessage, response: ServerResponse): void => {
      if (request.method !== "GET") {
        write(response, plain(405, "Only GET is answered here."))
        return
      }
      const [path = "/"] = (request.url ?? "/").split("?")
      const work = Effect.map(answer(path), (made) => write(response, made))
      if (spawn(work, { name: adminScope }) === undefined) write(response, plain(503, "It has ended."))
    }
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => createServer(handle)),
      (one) =>
        Effect.callback<void>((resume) => {
          one.close(() => resume(Effect.void))
          one.closeAllConnections()
        })
    )
    return yield* listenOn(server, at)
  })
