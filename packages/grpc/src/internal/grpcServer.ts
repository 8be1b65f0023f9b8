/**
 * A listening server and its stages.
 *
 * Invariants
 * 1. The finalizer is registered before the address is bound: what was bound is always given back.
 * 2. Each stage can be run by a shutdown's hook and by the finalizer, in any order and both: it takes effect once.
 * 3. Calls are answered before their connections are broken off, unless they do not end.
 * 4. Calls to implementations that were made elsewhere stand in the same table, by way of an interceptor.
 */
import { CancelReason, describe } from "@curfew/reason"
import { statusOf } from "@curfew/request"
import { CleanupBudget, moveOnAfter, type Owner } from "@curfew/scope"
import { Shutdown } from "@curfew/shutdown"
import * as grpc from "@grpc/grpc-js"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { BindError } from "../BindError.ts"
import type { GrpcServerOptions, GrpcServerShape, StopReport } from "../GrpcServer.ts"
import * as Health from "../Health.ts"
import type { Service } from "../Server.ts"
import { CurrentServerCalls } from "../ServerCalls.ts"
import { turns } from "./serverBridge.ts"
import { CallTable, type Entry } from "./serverCallTable.ts"
import { isOwn } from "./serverEdge.ts"

const forced: CancelReason = /* @__PURE__ */ CancelReason.Shutdown({ phase: "force" })

const keepalive: grpc.ServerOptions = {
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000
}

/** How long connections may take to close once their last call was answered. */
const lastBytes = Duration.seconds(2)

export const listening = <E, R>(
  options: GrpcServerOptions<E, R>
): Effect.Effect<GrpcServerShape, E | BindError, R | Owner | Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Effect.context<never>()
    const table = yield* CallTable.make(options, context)
    const health = yield* Health.make
    const running = new Running(options, table, health)
    const made: Array<Service> = []
    for (const service of options.services) {
      made.push(
        Effect.isEffect(service) ? yield* Effect.provideService(service, CurrentServerCalls, table) : service
      )
    }
    if (options.health !== false) {
      made.push(yield* Effect.provideService(health.service, CurrentServerCalls, table))
    }
    yield* Effect.addFinalizer(() => running.end)
    for (const service of made) yield* running.add(service)
    const name = options.name ?? `gRPC ${options.address}`
    yield* Shutdown.onStop(name, running.stop)
    yield* Shutdown.onDrain(name, running.drained)
    yield* Shutdown.onForce(name, Effect.andThen(running.cancel, running.breakOff))
    const port = yield* running.bind
    return {
      server: running.server,
      port,
      address: options.address.replace(/:0$/, `:${port}`),
      calls: table,
      health,
      add: running.addScoped
    }
  })

class Running<E, R> {
  readonly server: grpc.Server
  readonly #options: GrpcServerOptions<E, R>
  readonly #table: CallTable
  readonly #health: Health.Health
  readonly #own = new Set<string>()
  #stopping = false
  #closed = false
  #waiters: Array<() => void> = []
  /** What ran when the server began to stop. */
  #atStop: ReadonlySet<Entry> = new Set()

  constructor(options: GrpcServerOptions<E, R>, table: CallTable, health: Health.Health) {
    this.#options = options
    this.#table = table
    this.#health = health
    const given = options.options ?? {}
    const interceptors = [...(given.interceptors ?? []), this.#intercept]
    this.server = new grpc.Server({ ...keepalive, ...given, interceptors })
  }

  readonly add = (service: Service): Effect.Effect<void> =>
    Effect.suspend(() => {
      for (const { path } of Object.values(service.definition)) {
        if (isOwn(service)) this.#own.add(path)
      }
      this.server.addService(service.definition, service.implementation)
      return Effect.forEach(
        namesOf(service).filter((name) => name !== Health.serviceName),
        (name) => this.#health.setStatus(name, "SERVING"),
        { discard: true }
      )
    })

  readonly addScoped = (service: Service): Effect.Effect<void, never, Scope.Scope> =>
    Effect.acquireRelease(this.add(service), () =>
      Effect.suspend(() => {
        this.server.removeService(service.definition)
        return Effect.forEach(namesOf(service), (name) => this.#health.remove(name), { discard: true })
      })
    )

  readonly bind: Effect.Effect<number, BindError> = Effect.uninterruptible(
    Effect.callback((resume) => {
      const { address, credentials } = this.#options
      const how = credentials ?? grpc.ServerCredentials.createInsecure()
      this.server.bindAsync(address, how, (cause, port) =>
        resume(cause === null ? Effect.succeed(port) : Effect.fail(new BindError({ address, cause })))
      )
    })
  )

  readonly stop: Effect.Effect<void> = Effect.suspend(() => {
    if (this.#stopping) return Effect.void
    this.#stopping = true
    const { lameDuck } = this.#options
    return Effect.andThen(
      this.#health.stopServing,
      Effect.andThen(
        lameDuck === undefined ? turns(1) : Effect.sleep(lameDuck),
        Effect.sync(() => {
          this.#table.refusing = true
          this.#atStop = new Set(this.#table.entries)
          this.server.tryShutdown(() => {
            this.#closed = true
            for (const waiter of this.#waiters.splice(0)) waiter()
          })
        })
      )
    )
  })

  readonly drained: Effect.Effect<void> = Effect.suspend(() => this.#table.idle)

  /** Interrupts what is left and waits for its clean-up, within the budget. */
  readonly cancel: Effect.Effect<void> = Effect.flatMap(CleanupBudget, (budget) => {
    for (const entry of [...this.#table.entries]) entry.stop(forced)
    return Effect.asVoid(this.#table.drain(budget))
  })

  readonly #allClosed: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.#closed) return resume(Effect.void)
    this.#waiters.push(() => resume(Effect.void))
    return undefined
  })

  /** Lets the last answers out, and breaks off what does not close. */
  readonly breakOff: Effect.Effect<void> = Effect.flatMap(CleanupBudget, (budget) =>
    Effect.andThen(
      moveOnAfter(Duration.min(budget, lastBytes))(this.#allClosed),
      Effect.sync(() => this.server.forceShutdown())
    )
  )

  readonly end: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    yield* this.stop
    const stage = yield* Shutdown.stage
    if (stage === "running") yield* this.#table.drain(this.#options.drain ?? "20 seconds")
    yield* this.cancel
    const left = new Set(this.#table.entries)
    yield* this.breakOff
    const ended = [...this.#atStop].filter((entry) => !left.has(entry))
    const byForce = ended.filter((entry) => entry.ended?._tag === "Shutdown")
    const report: StopReport = {
      drained: ended.length - byForce.length,
      cancelled: byForce.map(({ method }) => method),
      abandoned: [...left].map(({ method }) => method)
    }
    const { abandoned, cancelled, drained } = report
    const counts = `${drained} drained, ${cancelled.length} cancelled, ${abandoned.length} abandoned`
    yield* Effect.logInfo(`The server on ${this.#options.address} has stopped: ${counts}.`)
    if (abandoned.length > 0) yield* Effect.logWarning(`Left behind: ${abandoned.join(", ")}.`)
    this.#options.onReport?.(report)
  })

  /** Brings calls to implementations from elsewhere into the table. */
  readonly #intercept: grpc.ServerInterceptor = (definition, call) => {
    // The interface is all that grpc-js uses, and a layer around each call would cost.
    if (this.#own.has(definition.path)) return call as grpc.ServerInterceptingCall
    const table = this.#table
    const end = (code: number, details: string): void => call.sendStatus({ code, details, metadata: null })
    let ended: CancelReason | undefined
    const entry: Entry = {
      id: table.nextId(),
      method: definition.path,
      peer: call.getPeer(),
      transport: "grpc",
      get ended() {
        return ended
      },
      stop: (reason) => {
        ended ??= reason
        end(statusOf(reason).grpc, describe(reason))
      }
    }
    const responder = new grpc.ResponderBuilder()
    if (table.refusing) {
      responder.withStart(() => end(grpc.status.UNAVAILABLE, "The server is shutting down"))
    } else {
      const limit = table.admit(entry)
      const code =
        limit === undefined ? 0 : (table.options.limitStatus?.(limit) ?? grpc.status.RESOURCE_EXHAUSTED)
      responder.withStart((next) => {
        if (limit !== undefined) return end(code, `Too many ${limit}`)
        next(new grpc.ServerListenerBuilder().withOnCancel(() => table.leave(entry)).build())
      })
    }
    return new grpc.ServerInterceptingCall(call, responder.build())
  }
}

const namesOf = (service: Service): ReadonlyArray<string> => [
  ...new Set(
    Object.values(service.definition).map(({ path }) =>
      path.slice(path.startsWith("/") ? 1 : 0, path.lastIndexOf("/"))
    )
  )
]
