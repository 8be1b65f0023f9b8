import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import {
  AccessRefused,
  Agent,
  openForward,
  Services,
  serveReverse,
  TunnelCall,
  type TunnelEvent,
  TunnelService
} from "../src/index.ts"
import { audited } from "./support/audit.ts"
import {
  collect,
  definition,
  EchoClient,
  implementation,
  metadata,
  type UnaryHandler,
  unary
} from "./support/echo.ts"
import { kinds, listen } from "./support/network.ts"

const { status: Code } = grpc
const insecure = grpc.credentials.createInsecure()
const echoing = Services.empty.pipe(Services.add(definition, implementation()))

interface Identity {
  readonly name: string
}

/** Whoever names itself is let in; a wrong name may not. */
const byName = ({ metadata: headers }: { readonly metadata: grpc.Metadata }) => {
  const name = headers.get("name")[0]
  if (name === undefined) return Effect.fail(AccessRefused.unauthenticated("Say who you are in `name`"))
  if (name === "mallory") return Effect.fail(AccessRefused.permissionDenied("You have been retired"))
  return Effect.succeed<Identity>({ name: String(name) })
}

const world = <I>(options: TunnelService.TunnelServiceOptions<I>) =>
  Effect.gen(function* () {
    const service = yield* TunnelService.make({ services: echoing, ...options })
    const { address } = yield* listen(service.addTo)
    const to = { address, credentials: insecure }
    const open = (kind: (typeof kinds)[number], headers: Readonly<Record<string, string>> = {}) =>
      kind === "forward"
        ? openForward(to, { metadata: metadata(headers) })
        : serveReverse(to, echoing, { metadata: metadata(headers) })
    return { service, to, open }
  })

describe.each(kinds)("who opens a %s tunnel", (kind) => {
  it.live("is let in or refused, with the hook's code and sentence, before the tunnel is accepted", () =>
    Effect.gen(function* () {
      const { open, service } = yield* world({ authenticate: byName })
      expect(yield* Effect.flip(open(kind))).toMatchObject({
        _tag: "TunnelOpenError",
        code: Code.UNAUTHENTICATED,
        details: expect.stringContaining("Say who you are in `name`")
      })
      expect(yield* Effect.flip(open(kind, { name: "mallory" }))).toMatchObject({
        code: Code.PERMISSION_DENIED,
        details: expect.stringContaining("You have been retired")
      })
      yield* open(kind, { name: "alice" })
      expect(yield* service.tunnels).toBe(1)
    }).pipe(Effect.scoped)
  )

  it.live("is seen by the hook with its address and its headers", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const { open } = yield* world({
        authenticate: ({ certificate, kind: opened, metadata: headers, peer, secure }) =>
          Effect.sync(() => {
            seen.push({ opened, peer, secure, certificate, name: headers.get("name")[0] })
          })
      })
      yield* open(kind, { name: "alice" })
      expect(seen).toEqual([
        {
          opened: kind,
          peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
          secure: false,
          certificate: undefined,
          name: "alice"
        }
      ])
    }).pipe(Effect.scoped)
  )

  it.live("is refused when the hook takes too long, and the hook is interrupted", () =>
    Effect.gen(function* () {
      let interrupted = 0
      const { open, service } = yield* world({
        authTimeout: "20 millis",
        authenticate: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
      })
      expect(yield* Effect.flip(open(kind))).toMatchObject({ code: Code.UNAVAILABLE })
      expect(interrupted).toBe(1)
      yield* Effect.repeat(Effect.yieldNow, { until: () => Effect.runSync(service.tunnels) === 0 })
    }).pipe(Effect.scoped)
  )

  it.live("is refused when the hook dies or throws, which is logged, and the next one is let in", () =>
    Effect.gen(function* () {
      const [, findings] = yield* audited(
        Effect.scoped(
          Effect.gen(function* () {
            let asked = 0
            const { open, service } = yield* world({
              authenticate: () => {
                asked++
                if (asked === 1) throw new Error("thrown secret")
                return asked === 2 ? Effect.die(new Error("died secret")) : Effect.succeed("in")
              }
            })
            for (let time = 0; time < 2; time++) {
              const error = yield* Effect.flip(open(kind))
              expect(error).toMatchObject({ code: Code.INTERNAL })
              expect(error.details).not.toContain("secret")
            }
            yield* open(kind)
            expect(yield* service.tunnels).toBe(1)
          })
        )
      )
      expect(findings.liveFibers).toBe(0)
      expect(findings.errorLogs).toHaveLength(2)
    })
  )

  it.live("interrupts the hook by leaving, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const asked = Deferred.makeUnsafe<void>()
      const gone = Deferred.makeUnsafe<void>()
      const { open, service } = yield* world({
        authenticate: () =>
          Effect.andThen(
            Deferred.succeed(asked, undefined),
            Effect.onInterrupt(Effect.never, () => Deferred.succeed(gone, undefined))
          )
      })
      const opening = yield* Effect.forkChild(Effect.scoped(open(kind)))
      yield* Deferred.await(asked)
      expect(yield* service.tunnels).toBe(1)
      yield* Fiber.interrupt(opening)
      yield* Deferred.await(gone)
      yield* Effect.repeat(Effect.yieldNow, { until: () => Effect.runSync(service.tunnels) === 0 })
    }).pipe(Effect.scoped)
  )

  it.live("is told that the service ends while the hook runs", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const asked = Deferred.makeUnsafe<void>()
      const service = yield* Scope.provide(
        TunnelService.make({
          services: echoing,
          authenticate: () => Effect.andThen(Deferred.succeed(asked, undefined), Effect.never)
        }),
        scope
      )
      const { address } = yield* listen(service.addTo)
      const to = { address, credentials: insecure }
      const opening = yield* Effect.forkChild(
        Effect.flip(Effect.scoped(kind === "forward" ? openForward(to) : serveReverse(to, echoing)))
      )
      yield* Deferred.await(asked)
      yield* Scope.close(scope, Exit.void)
      expect(yield* Fiber.join(opening)).toMatchObject({ code: Code.UNAVAILABLE })
    }).pipe(Effect.scoped)
  )

  it.live("is refused when as many tunnels are open as may be", () =>
    Effect.gen(function* () {
      const { open } = yield* world({ maxTunnels: 1 })
      yield* open(kind)
      expect(yield* Effect.flip(open(kind))).toMatchObject({ code: Code.RESOURCE_EXHAUSTED })
    }).pipe(Effect.scoped)
  )
})

it.live("an agent's identity names its reverse tunnel and stands in the registry", () =>
  Effect.gen(function* () {
    const { open, service } = yield* world<Identity>({
      authenticate: byName,
      affinityKey: ({ identity }) => `agent ${identity.name}`
    })
    yield* open("reverse", { name: "alice" })
    const tunnel = yield* service.reverse.awaitReverse("agent alice")
    expect(tunnel.identity).toEqual({ name: "alice" })
  }).pipe(Effect.scoped)
)

describe("a call that comes through a forward tunnel", () => {
  it.live("is let in or refused by the method, its metadata and the tunnel's identity", () =>
    Effect.gen(function* () {
      let handled = 0
      const Unary: UnaryHandler = (call, callback) => {
        handled++
        const { identity } = TunnelCall.tunnel(call) as { readonly identity: Identity }
        callback(null, Buffer.from(identity.name))
      }
      const events: Array<TunnelEvent> = []
      const { to } = yield* world<Identity>({
        services: Services.empty.pipe(Services.add(definition, implementation({ Unary }))),
        authenticate: byName,
        observer: (event) => events.push(event),
        authorize: ({ metadata: sent, method, tunnel }) =>
          tunnel.identity.name === "alice" && sent.get("may")[0] === "yes"
            ? Effect.void
            : Effect.fail(AccessRefused.permissionDenied(`${tunnel.identity.name} may not call ${method}`))
      })
      const tunnel = yield* openForward(to, { metadata: metadata({ name: "alice" }) })
      const client = tunnel.client(EchoClient)
      const allowed = yield* Effect.promise(() =>
        unary(client, Buffer.from("q"), { metadata: metadata({ may: "yes" }) })
      )
      expect(String(allowed.value)).toBe("alice")
      expect(yield* Effect.promise(() => unary(client, Buffer.from("q")))).toMatchObject({
        code: Code.PERMISSION_DENIED,
        details: "alice may not call /curfew.test.Echo/Unary"
      })
      expect(handled).toBe(1)
      expect(events.filter(({ _tag }) => _tag === "StreamRefused")).toMatchObject([
        { code: Code.PERMISSION_DENIED }
      ])
      expect(events.filter(({ _tag }) => _tag === "StreamCancelled")).toEqual([])
    }).pipe(Effect.scoped)
  )

  it.live("of every kind goes on where it stood when the hook took its time", () =>
    Effect.gen(function* () {
      const gate = { open: Deferred.makeUnsafe<void>(), waiting: 0 }
      const { to } = yield* world<undefined>({
        authorize: () =>
          Effect.suspend(() => {
            gate.waiting++
            return Deferred.await(gate.open)
          })
      })
      const client = (yield* openForward(to)).client(EchoClient)
      const one = unary(client, Buffer.from("q"))
      const upload = new Promise<Buffer | undefined>((resolve) => {
        const call = client.ClientStream(metadata(), {}, (_error, value) => resolve(value))
        for (const part of ["a", "b", "c"]) call.write(Buffer.from(part))
        call.end()
      })
      const download = collect(client.ServerStream(Buffer.from([3])))
      const bidi = client.Bidi()
      const both = collect(bidi)
      bidi.write(Buffer.from("x"))
      bidi.end()
      yield* Effect.repeat(Effect.yieldNow, { until: () => gate.waiting === 4 })
      // What was written before has arrived when this is answered.
      const { path, ...rest } = definition.Unary
      const barrier = new Promise<number | undefined>((resolve) =>
        client.makeUnaryRequest(
          path.replace("Unary", "Nothing"),
          rest.requestSerialize,
          rest.responseDeserialize,
          Buffer.from("q"),
          (error) => resolve(error?.code)
        )
      )
      expect(yield* Effect.promise(() => barrier)).toBe(Code.UNIMPLEMENTED)
      yield* Deferred.succeed(gate.open, undefined)
      expect((yield* Effect.promise(() => one)).code).toBe(Code.OK)
      expect(String(yield* Effect.promise(() => upload))).toBe("abc")
      expect((yield* Effect.promise(() => download)).messages).toHaveLength(3)
      expect((yield* Effect.promise(() => both)).messages.map(String)).toEqual(["x"])
    }).pipe(Effect.scoped)
  )

  it.live("is refused when the hook dies or takes too long, and the tunnel goes on", () =>
    Effect.gen(function* () {
      const [, findings] = yield* audited(
        Effect.scoped(
          Effect.gen(function* () {
            const { to } = yield* world<undefined>({
              authTimeout: "20 millis",
              authorize: ({ metadata: sent }) => {
                const wanted = sent.get("hook")[0]
                if (wanted === "hangs") return Effect.never
                return wanted === "dies" ? Effect.die(new Error("secret")) : Effect.void
              }
            })
            const client = (yield* openForward(to)).client(EchoClient)
            const call = (hook: string) =>
              Effect.promise(() => unary(client, Buffer.from("q"), { metadata: metadata({ hook }) }))
            expect((yield* call("hangs")).code).toBe(Code.UNAVAILABLE)
            const dead = yield* call("dies")
            expect(dead.code).toBe(Code.INTERNAL)
            expect(dead.details).not.toContain("secret")
            expect((yield* call("works")).code).toBe(Code.OK)
          })
        )
      )
      expect(findings.liveFibers).toBe(0)
      expect(findings.errorLogs).toHaveLength(1)
    })
  )

  it.live("interrupts the hook by its cancel and by its deadline", () =>
    Effect.gen(function* () {
      const reasons: Array<string> = []
      const asked: Array<Deferred.Deferred<void>> = [Deferred.makeUnsafe(), Deferred.makeUnsafe()]
      const left: Array<Deferred.Deferred<void>> = [Deferred.makeUnsafe(), Deferred.makeUnsafe()]
      let calls = 0
      const { to } = yield* world<undefined>({
        authorize: () =>
          Effect.suspend(() => {
            const index = calls++
            return Effect.andThen(
              Deferred.succeed(asked[index] as Deferred.Deferred<void>, undefined),
              Effect.onInterrupt(Effect.never, () => {
                reasons.push(`call ${index}`)
                return Deferred.succeed(left[index] as Deferred.Deferred<void>, undefined)
              })
            )
          })
      })
      const tunnel = yield* openForward(to)
      const client = tunnel.client(EchoClient)
      let call: grpc.ClientUnaryCall | undefined
      const cancelled = unary(client, Buffer.from("q"), {
        onCall: (it) => {
          call = it
        }
      })
      yield* Deferred.await(asked[0] as Deferred.Deferred<void>)
      call?.cancel()
      yield* Deferred.await(left[0] as Deferred.Deferred<void>)
      expect((yield* Effect.promise(() => cancelled)).code).toBe(Code.CANCELLED)
      const late = unary(client, Buffer.from("q"), { call: { deadline: Date.now() + 40 } })
      yield* Deferred.await(left[1] as Deferred.Deferred<void>)
      expect((yield* Effect.promise(() => late)).code).toBe(Code.DEADLINE_EXCEEDED)
      expect(reasons).toEqual(["call 0", "call 1"])
      yield* Effect.repeat(
        Effect.flatMap(tunnel.stats, (stats) => Effect.as(Effect.yieldNow, stats)),
        {
          until: ({ streams }) => streams === 0
        }
      )
    }).pipe(Effect.scoped)
  )
})

it.live("an agent lets the network server's calls in, or refuses them", () =>
  Effect.gen(function* () {
    const { service, to } = yield* world({ metadata: metadata({ gateway: "one" }) })
    yield* Agent.serve(to, echoing, {
      authorize: ({ metadata: sent, tunnel }) =>
        tunnel.metadata.get("gateway")[0] === "one" && sent.get("may")[0] === "yes"
          ? Effect.void
          : Effect.fail(AccessRefused.permissionDenied("Not from there"))
    })
    const tunnel = yield* service.reverse.awaitReverse()
    const client = tunnel.client(EchoClient)
    const refused = yield* Effect.promise(() => unary(client, Buffer.from("q")))
    expect(refused).toMatchObject({ code: Code.PERMISSION_DENIED, details: "Not from there" })
    const allowed = yield* Effect.promise(() =>
      unary(client, Buffer.from("q"), { metadata: metadata({ may: "yes" }) })
    )
    expect(allowed.code).toBe(Code.OK)
  }).pipe(Effect.scoped)
)
