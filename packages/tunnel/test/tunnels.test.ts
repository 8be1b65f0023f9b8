import { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { openForward, Services, serveReverse, TunnelCall, TunnelService } from "../src/index.ts"
import { audited } from "./support/audit.ts"
import { definition, EchoClient, implementation, metadata, type UnaryHandler, unary } from "./support/echo.ts"
import { listen, tunnelPair } from "./support/network.ts"

const { status: Code } = grpc
const insecure = grpc.credentials.createInsecure()
const services = Services.empty.pipe(Services.add(definition, implementation()))

describe("opening a tunnel", () => {
  it.live("to a server without services for forward tunnels fails with UNIMPLEMENTED", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make()
      const { address } = yield* listen(service.addTo)
      const error = yield* Effect.flip(openForward({ address, credentials: insecure }))
      expect(error).toMatchObject({ _tag: "TunnelOpenError", code: Code.UNIMPLEMENTED })
    }).pipe(Effect.scoped)
  )

  it.live("to a server that takes no reverse tunnels fails with UNIMPLEMENTED", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make({ reverse: false })
      const { address } = yield* listen(service.addTo)
      const error = yield* Effect.flip(serveReverse({ address, credentials: insecure }, services))
      expect(error).toMatchObject({ code: Code.UNIMPLEMENTED })
    }).pipe(Effect.scoped)
  )

  it.live("to nobody fails with UNAVAILABLE", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(openForward({ address: "127.0.0.1:1", credentials: insecure }))
      expect(error).toMatchObject({ code: Code.UNAVAILABLE })
    }).pipe(Effect.scoped)
  )

  it.live("over a client that was closed fails with UNAVAILABLE", () =>
    Effect.gen(function* () {
      const [error, findings] = yield* audited(
        Effect.gen(function* () {
          const client = new grpc.Client("127.0.0.1:1", insecure)
          client.close()
          return yield* Effect.flip(Effect.scoped(openForward({ client })))
        })
      )
      expect(error).toMatchObject({ _tag: "TunnelOpenError", code: Code.UNAVAILABLE })
      expect(findings).toMatchObject({ liveFibers: 0, errorLogs: [] })
    })
  )

  it.live("to a server that stays silent fails in time, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const [error, findings] = yield* audited(
        Effect.scoped(
          Effect.gen(function* () {
            const silent = { OpenTunnel: () => undefined }
            const service = yield* TunnelService.make({ services })
            const { address } = yield* listen((server) => {
              server.addService({ OpenTunnel: service.definition["OpenTunnel"] as never }, silent)
            })
            return yield* Effect.flip(
              openForward({ address, credentials: insecure }, { openTimeout: "50 millis" })
            )
          })
        )
      )
      expect(error).toMatchObject({ code: Code.DEADLINE_EXCEEDED })
      expect(findings).toMatchObject({ liveFibers: 0, errorLogs: [] })
    })
  )

  it.live("can be interrupted, which cancels the outer call", () =>
    Effect.gen(function* () {
      const left = yield* Effect.callback<void>((resume) => {
        const program = Effect.scoped(
          Effect.gen(function* () {
            const service = yield* TunnelService.make({ services })
            let opened: (() => void) | undefined
            const arrived = Effect.callback<void>((resumeArrived) => {
              opened = () => resumeArrived(Effect.void)
            })
            const { address } = yield* listen((server) => {
              server.addService(
                { OpenTunnel: service.definition["OpenTunnel"] as never },
                {
                  OpenTunnel: (call: grpc.ServerDuplexStream<Buffer, Buffer>) => {
                    opened?.()
                    call.on("cancelled", () => resume(Effect.void))
                  }
                }
              )
            })
            const opening = yield* Effect.forkChild(openForward({ address, credentials: insecure }))
            yield* arrived
            yield* Fiber.interrupt(opening)
          })
        )
        const running = Effect.runFork(program)
        return Fiber.interrupt(running)
      })
      expect(left).toBeUndefined()
    })
  )
})

describe("a channel", () => {
  it.live("is ready while its tunnel is open, and a waiting stub hears of it", () =>
    Effect.gen(function* () {
      const { channel, client } = yield* tunnelPair("forward")
      yield* Effect.promise(
        () =>
          new Promise<void>((resolve, reject) =>
            client.waitForReady(Date.now() + 5000, (error) => (error ? reject(error) : resolve()))
          )
      )
      expect(channel.grpc.getConnectivityState(false)).toBe(grpc.connectivityState.READY)
      yield* channel.close(CancelReason.Requested({ message: "enough" }))
      expect(channel.grpc.getConnectivityState(false)).toBe(grpc.connectivityState.SHUTDOWN)
      expect(yield* channel.closed).toMatchObject({ _tag: "ClosedHere", reason: { message: "enough" } })
    }).pipe(Effect.scoped)
  )

  it.live("tells who waits for it that its tunnel is closed, or closes", () =>
    Effect.gen(function* () {
      const { channel, client } = yield* tunnelPair("forward")
      const watched = new Promise<string>((resolve) =>
        channel.grpc.watchConnectivityState(grpc.connectivityState.READY, Number.POSITIVE_INFINITY, (error) =>
          resolve(error?.message ?? "changed")
        )
      )
      yield* channel.close()
      expect(yield* Effect.promise(() => watched)).toBe("changed")
      const waited = new Promise((resolve) => client.waitForReady(Number.POSITIVE_INFINITY, resolve))
      expect(yield* Effect.promise(() => waited)).toBeInstanceOf(Error)
      const again = new Promise((resolve) =>
        channel.grpc.watchConnectivityState(
          grpc.connectivityState.SHUTDOWN,
          Number.POSITIVE_INFINITY,
          resolve
        )
      )
      expect(yield* Effect.promise(() => again)).toBeInstanceOf(Error)
    }).pipe(Effect.scoped)
  )

  it.live("stays open when a stub over it is closed", () =>
    Effect.gen(function* () {
      const { channel, client } = yield* tunnelPair("forward")
      client.close()
      const another = channel.client(EchoClient)
      expect((yield* Effect.promise(() => unary(another, Buffer.from("q")))).code).toBe(Code.OK)
    }).pipe(Effect.scoped)
  )

  it.live("passes the cancel of a parent call on, and not the parent's success", () =>
    Effect.gen(function* () {
      const inner = yield* tunnelPair("forward", { handlers: { Unary: () => undefined } })
      const results: Array<number> = []
      let child: Promise<{ readonly code: number }> | undefined
      const Unary: UnaryHandler = (call, callback) => {
        child = unary(inner.client, Buffer.from("q"), { call: { parent: call } })
        if (call.request.toString() === "answer") callback(null, call.request)
      }
      const outer = yield* tunnelPair("forward", { handlers: { Unary } })
      results.push((yield* Effect.promise(() => unary(outer.client, Buffer.from("answer")))).code)
      expect(inner.events.some((event) => event._tag === "StreamCancelled")).toBe(false)
      let call: grpc.ClientUnaryCall | undefined
      const second = unary(outer.client, Buffer.from("hang"), { onCall: (it) => (call = it) })
      const before = child
      yield* Effect.repeat(Effect.yieldNow, { until: () => child !== before })
      call?.cancel()
      results.push((yield* Effect.promise(() => second)).code)
      results.push((yield* Effect.promise(() => child as Promise<{ readonly code: number }>)).code)
      expect(results).toEqual([Code.OK, Code.CANCELLED, Code.CANCELLED])
    }).pipe(Effect.scoped)
  )
})

describe("a handler", () => {
  it.live("can ask for the tunnel that its call came through", () =>
    Effect.gen(function* () {
      const Unary: UnaryHandler = (call, callback) =>
        callback(null, Buffer.from(String(TunnelCall.tunnel(call)?.metadata.get("agent")[0])))
      const offered = Services.empty.pipe(Services.add(definition, implementation({ Unary })))
      const service = yield* TunnelService.make({ services: offered })
      const { address } = yield* listen(service.addTo)
      const tunnel = yield* openForward(
        { address, credentials: insecure },
        { metadata: metadata({ agent: "seven" }) }
      )
      const answer = yield* Effect.promise(() => unary(tunnel.client(EchoClient), Buffer.from("q")))
      expect(answer.value?.toString()).toBe("seven")
    }).pipe(Effect.scoped)
  )
})

describe("what other people's code throws", () => {
  it.live(
    "in a stub's callback, a listener or the observer is reported once each, and the tunnel lives on",
    () =>
      Effect.gen(function* () {
        const [, findings] = yield* audited(
          Effect.scoped(
            Effect.gen(function* () {
              let broken = true
              const Unary: UnaryHandler = (call, callback) => {
                if (call.request.toString() === "hang") {
                  call.on("cancelled", () => {
                    throw new Error("listener")
                  })
                  asked = true
                } else callback(null, call.request)
              }
              let asked = false
              const { client } = yield* tunnelPair("forward", {
                handlers: { Unary },
                tunnel: {
                  observer: (event) => {
                    if (event._tag !== "StreamClosed" || event.side !== "server" || !broken) return
                    broken = false
                    throw new Error("observer")
                  }
                }
              })
              client.Unary(Buffer.from("q"), metadata(), {}, () => {
                throw new Error("callback")
              })
              expect((yield* Effect.promise(() => unary(client, Buffer.from("q")))).code).toBe(Code.OK)
              let call: grpc.ClientUnaryCall | undefined
              const hanging = unary(client, Buffer.from("hang"), {
                onCall: (it) => {
                  call = it
                }
              })
              yield* Effect.repeat(Effect.yieldNow, { until: () => asked })
              call?.cancel()
              expect((yield* Effect.promise(() => hanging)).code).toBe(Code.CANCELLED)
              expect((yield* Effect.promise(() => unary(client, Buffer.from("q")))).code).toBe(Code.OK)
            })
          )
        )
        expect(findings.liveFibers).toBe(0)
        expect(findings.errorLogs.length).toBe(3)
      })
  )
})

describe("reverse tunnels", () => {
  /** Serves under a key, with an answer that names the agent. */
  const agent = (address: string, key: string, name: string) =>
    serveReverse(
      { address, credentials: insecure },
      Services.empty.pipe(
        Services.add(
          definition,
          implementation({ Unary: (_call, callback) => callback(null, Buffer.from(name)) })
        )
      ),
      { metadata: metadata({ key }) }
    )

  const keyed = {
    affinityKey: ({ metadata: headers }: { readonly metadata: grpc.Metadata }) =>
      String(headers.get("key")[0])
  }

  it.live("are picked in turn, by key or among all", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make(keyed)
      const { address } = yield* listen(service.addTo)
      const { reverse } = service
      for (const [key, name] of [
        ["x", "A"],
        ["x", "B"],
        ["y", "C"]
      ] as const) {
        yield* agent(address, key, name)
        yield* reverse.awaitReverse(key)
      }
      yield* Effect.repeat(Effect.yieldNow, { until: () => Effect.runSync(reverse.list).length === 3 })
      const ask = (key?: string) => {
        const client = new EchoClient("any", insecure, { channelOverride: reverse.channel({ key }) })
        return Effect.map(
          Effect.promise(() => unary(client, Buffer.from("q"))),
          ({ value }) => String(value)
        )
      }
      expect(new Set([yield* ask("x"), yield* ask("x")])).toEqual(new Set(["A", "B"]))
      expect(yield* ask("y")).toBe("C")
      expect(new Set([yield* ask(), yield* ask(), yield* ask()])).toEqual(new Set(["A", "B", "C"]))
    }).pipe(Effect.scoped)
  )

  it.live("that are not there give UNAVAILABLE to a call and nothing to a pick", () =>
    Effect.gen(function* () {
      const { reverse } = yield* TunnelService.make(keyed)
      const client = new EchoClient("any", insecure, { channelOverride: reverse.channel({ key: "x" }) })
      expect((yield* Effect.promise(() => unary(client, Buffer.from("q")))).code).toBe(Code.UNAVAILABLE)
      expect(yield* reverse.pick("x")).toEqual(Option.none())
    }).pipe(Effect.scoped)
  )

  it.live("are listed when they are ready, and no longer when they close; both are told once", () =>
    Effect.gen(function* () {
      const told: Array<string> = []
      const service = yield* TunnelService.make({
        ...keyed,
        onReverseOpen: (key) => told.push(`open ${key}`),
        onReverseClose: (key) => told.push(`close ${key}`)
      })
      const { address } = yield* listen(service.addTo)
      const scope = yield* Scope.make()
      yield* agent(address, "x", "A").pipe(Scope.provide(scope))
      const channel = yield* service.reverse.awaitReverse("x")
      expect(told).toEqual(["open x"])
      yield* Scope.close(scope, Exit.void)
      expect((yield* channel.closed)._tag).toBe("ClosedByPeer")
      expect(told).toEqual(["open x", "close x"])
      expect(yield* service.reverse.list).toEqual([])
    }).pipe(Effect.scoped)
  )

  it.live("survive callbacks that throw, and are not listed for ever", () =>
    Effect.gen(function* () {
      const broken = () => {
        throw new Error("callback")
      }
      const [, findings] = yield* audited(
        Effect.scoped(
          Effect.gen(function* () {
            const service = yield* TunnelService.make({ onReverseOpen: broken, onReverseClose: broken })
            const { address } = yield* listen(service.addTo)
            const scope = yield* Scope.make()
            yield* agent(address, "x", "A").pipe(Scope.provide(scope))
            const channel = yield* service.reverse.awaitReverse()
            const answer = yield* Effect.promise(() => unary(channel.client(EchoClient), Buffer.from("q")))
            expect(answer.code).toBe(Code.OK)
            yield* Scope.close(scope, Exit.void)
            yield* channel.closed
            expect(yield* service.reverse.list).toEqual([])
          })
        )
      )
      expect(findings.liveFibers).toBe(0)
      expect(findings.errorLogs.length).toBe(2)
    })
  )

  it.live("do not leave who waits for one behind when their service ends", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const service = yield* Scope.provide(TunnelService.make(), scope)
      const stub = new EchoClient("x", insecure, { channelOverride: service.reverse.channel() })
      const waited = new Promise((resolve) => stub.waitForReady(Number.POSITIVE_INFINITY, resolve))
      yield* Effect.yieldNow
      yield* Scope.close(scope, Exit.void)
      expect(yield* Effect.promise(() => waited)).toBeInstanceOf(Error)
    })
  )
})

describe("a service that drains", () => {
  it.live("refuses new streams and tunnels, and waits for those that run", () =>
    Effect.gen(function* () {
      let finish: (() => void) | undefined
      const Unary: UnaryHandler = (call, callback) => {
        finish = () => callback(null, call.request)
      }
      const { client, listening, service } = yield* tunnelPair("forward", { handlers: { Unary } })
      const running = unary(client, Buffer.from("q"))
      yield* Effect.repeat(Effect.yieldNow, { until: () => finish !== undefined })
      expect(yield* service.drain(0)).toBe(false)
      expect((yield* Effect.promise(() => unary(client, Buffer.from("q")))).code).toBe(Code.UNAVAILABLE)
      const to = { address: listening.address, credentials: insecure }
      expect(yield* Effect.flip(openForward(to))).toMatchObject({ code: Code.UNAVAILABLE })
      finish?.()
      expect(yield* service.drain()).toBe(true)
      expect((yield* Effect.promise(() => running)).code).toBe(Code.OK)
    }).pipe(Effect.scoped)
  )
})
