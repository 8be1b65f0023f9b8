/**
 * A listening server and its stages.
 *
 * Invariants
 * 1. The finalizer is registered before the address is bound: what was bound is always given back.
 * 2. Each stage can be run by a shutdown's hook and by the finalizer, in any order and both: it takes effect once.
 * 3. Calls are answered before their connections are broken off, unless they do not end.
 * 4. Calls to implementations that were made elsewhere stand in the same table, by way of an interceptor.
 */
import { CancelReason } from "@curfew/reason"
import { statusOf } from "@curfew/request"
import { CleanupBudget, moveOnAfter, type Owner } from "@curfew/scope"
import { millisUnsafe } from "@curfew/scope/Argument"
import { Shutdown } from "@curfew/shutdown"
import * as grpc from "@grpc/grpc-js"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { BindError } from "../../BindError.ts"
import type { GrpcServerOptions, GrpcServerShape, StopReport } from "../../GrpcServer.ts"
import * as Health from "../../Health.ts"
import type { Service } from "../../Server.ts"
import { CurrentServerCalls } from "../../ServerCalls.ts"
import { turns } from "../turns.ts"
import { CallTable, type Entry } from "./callTable.ts"
import { isOwn } from "./service.ts"
import { detailsOf } from "./status.ts"

const forced: CancelReason = /* @__PURE__ */ CancelReason.Shutdown({ phase: "force" })

/**
 * Under this registered symbol a service says how its calls are brought to their end: those of a tunnel service last as
 * long as their tunnels, which a drain would wait for in vain.
 */
const stopKey = /* @__PURE__ */ Symbol.for("curfew.stop")

type Stop = (limit: Duration.Input) => Effect.Effect<unknown>

const stopOf = (service: Service): Stop | undefined => (service as { readonly [stopKey]?: Stop })[stopKey]

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
    const port = yield* running.bind
    const name = options.name ?? `gRPC ${running.address}`
    // A shutdown that has begun meanwhile runs them at once.
    yield* Shutdown.onStop(name, running.stop)
    yield* Shutdown.onDrain(name, running.drained)
    yield* Shutdown.onForce(name, Effect.andThen(running.cancel, running.breakOff))
    return {
      server: running.server,
      port,
      address: running.address,
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
  /** Of removed services too: their calls go on. */
  readonly #stops = new Set<Stop>()
  readonly #lameDuck: number | undefined
  readonly #drain: number
  /** With the port that was bound; `undefined` before. */
  #address: string | undefined
  #stopping = false
  #refusing = false
  #closed = false
  #waiters: Array<() => void> = []
  /** What ran when the server began to stop, and what came before it refused. */
  readonly #atStop = new Set<Entry>()
  /**
   * What had not ended when it came to force. Asked each call, it might know another reason, from before, or none, if it
   * was made elsewhere.
   */
  readonly #atForce = new Set<Entry>()

  constructor(options: GrpcServerOptions<E, R>, table: CallTable, health: Health.Health) {
    this.#options = options
    this.#table = table
    this.#health = health
    // Read here: at the end of the server it would be too late to complain.
    const { drain, lameDuck } = options
    this.#drain = millisUnsafe("the drain of the server", drain ?? "20 seconds")
    this.#lameDuck = lameDuck === undefined ? undefined : millisUnsafe("the lameDuck of the server", lameDuck)
    const given = options.options ?? {}
    // The first is the next to the wire: a call that another one ends has never come in.
    const interceptors = [this.#intercept, ...(given.interceptors ?? [])]
    this.server = new grpc.Server({ ...keepalive, ...given, interceptors })
  }

  get address(): string {
    return this.#address ?? this.#options.address
  }

  readonly add = (service: Service): Effect.Effect<void> =>
    Effect.suspend(() => {
      for (const { path } of Object.values(service.definition)) {
        if (isOwn(service)) this.#own.add(path)
      }
      const stop = stopOf(service)
      if (stop !== undefined) this.#stops.add(stop)
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
      const failed = (cause: Error) => resume(Effect.fail(new BindError({ address, cause })))
      try {
        this.server.bindAsync(address, how, (cause, port) => {
          if (cause !== null) return failed(cause)
          this.#address = address.replace(/:0$/, `:${port}`)
          resume(Effect.succeed(port))
        })
      } catch (error) {
        // An address that cannot be read is thrown.
        failed(error as Error)
      }
    })
  )

  readonly stop: Effect.Effect<void> = Effect.suspend(() => {
    // Asked again, or interrupted, the lame duck is over.
    if (this.#stopping) return this.#refuse
    this.#stopping = true
    this.#note()
    const told = this.#lameDuck === undefined ? turns(1) : Effect.sleep(this.#lameDuck)
    // A force that comes meanwhile ends the wait and nothing more: the listener still has to close.
    return Effect.ensuring(Effect.andThen(this.#health.stopServing, told), this.#refuse)
  })

  #note(): void {
    for (const entry of this.#table.entries) this.#atStop.add(entry)
  }

  /** Takes no call any more: after the lame duck, or when a later stage cuts that short. */
  readonly #refuse: Effect.Effect<void> = Effect.sync(() => {
    if (this.#refusing) return
    this.#refusing = true
    this.#table.refusing = true
    this.#note()
    this.server.tryShutdown(() => {
      this.#closed = true
      for (const waiter of this.#waiters.splice(0)) waiter()
    })
  })

  readonly #beginForce = (): void => {
    for (const entry of this.#table.entries) this.#atForce.add(entry)
  }

  /** Brings calls to their end that do not end by themselves. */
  #stopLongCalls(limit: Duration.Input): Effect.Effect<void> {
    return Effect.forEach([...this.#stops], (stop) => stop(limit), {
      concurrency: "unbounded",
      discard: true
    })
  }

  /** A shutdown that forces cancels this wait, and then the calls, which do not wait for the server to do so. */
  readonly drained: Effect.Effect<void> = Effect.suspend(() =>
    Effect.onInterrupt(Effect.andThen(this.#stopLongCalls(Duration.infinity), this.#table.idle), () =>
      Effect.sync(this.#beginForce)
    )
  )

  /** Interrupts what is left and waits for its clean-up, within the budget. */
  readonly cancel: Effect.Effect<void> = Effect.andThen(
    this.#refuse,
    Effect.flatMap(CleanupBudget, (budget) => {
      this.#beginForce()
      for (const entry of [...this.#table.entries]) entry.stop(forced)
      return Effect.asVoid(this.#table.drain(budget))
    })
  )

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
    // It never listened: nothing has to stop.
    if (this.#address === undefined) return this.server.forceShutdown()
    yield* this.stop
    yield* this.#refuse
    const stage = yield* Shutdown.stage
    if (stage === "running") {
      yield* Effect.all([this.#stopLongCalls(this.#drain), this.#table.drain(this.#drain)], {
        concurrency: "unbounded"
      })
    }
    yield* this.cancel
    const left = new Set(this.#table.entries)
    yield* this.breakOff
    const ended = [...this.#atStop].filter((entry) => !left.has(entry))
    const byForce = ended.filter((entry) => entry.ended?._tag === "Shutdown" || this.#atForce.has(entry))
    const report: StopReport = {
      drained: ended.length - byForce.length,
      cancelled: byForce.map(({ method }) => method),
      abandoned: [...left].map(({ method }) => method)
    }
    const { abandoned, cancelled, drained } = report
    const counts = `${drained} drained, ${cancelled.length} cancelled, ${abandoned.length} abandoned`
    yield* Effect.logInfo(`The server on ${this.address} has stopped: ${counts}.`)
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
      place: -1,
      get ended() {
        return ended
      },
      stop: (reason) => {
        ended ??= reason
        end(statusOf(reason).grpc, detailsOf(reason))
      }
    }
    const listener = new grpc.ServerListenerBuilder()
      // Not heard for a call that had ended before somebody further out went on with it; nor is its cancel.
      .withOnReceiveMetadata((metadata, next) => {
        if (table.refusing) return end(grpc.status.UNAVAILABLE, "The server is shutting down")
        const refused = table.admit(entry)
        if (refused !== undefined) return end(table.statusOf(refused.limit), refused.details)
        next(metadata)
      })
      .withOnCancel(() => table.leave(entry))
      .build()
    const responder = new grpc.ResponderBuilder().withStart((next) => next(listener))
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
