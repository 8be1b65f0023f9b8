import type { ConnectionOptions } from "node:tls"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import {
  AccessRefused,
  openForward,
  Services,
  serveReverse,
  TunnelCall,
  type TunnelOpening,
  type TunnelOptions,
  TunnelService
} from "../src/index.ts"
import { definition, EchoClient, implementation, type UnaryHandler, unary } from "./support/echo.ts"
import { kinds, listenWith } from "./support/network.ts"
import { type Authority, type Signed, serving, trusting, trustingOwn } from "./support/tls.ts"

const { status: Code } = grpc
const insecure = grpc.credentials.createInsecure()

/** Answers with the secret that came with the call, and with the name in the certificate below it. */
const Unary: UnaryHandler = (call, callback) => {
  const tunnel = TunnelCall.tunnel(call)
  const secret = String(call.metadata.get("secret")[0])
  callback(null, Buffer.from(`${secret} ${tunnel?.secure} ${tunnel?.certificate?.subject.CN}`))
}
const services = Services.empty.pipe(Services.add(definition, implementation({ Unary })))

/** An endpoint without its address. */
type Dial = { readonly credentials: grpc.ChannelCredentials } | { readonly tls: ConnectionOptions | false }

type Trust = (servers: Authority, own?: Signed) => Dial

const ways: ReadonlyArray<readonly [string, Trust, Dial]> = [
  ["grpc-js", (...whom) => ({ credentials: trusting(...whom) }), { credentials: insecure }],
  ["a connection of its own", (...whom) => ({ tls: trustingOwn(...whom) }), { tls: false }]
]

const kindsAndWays = kinds.flatMap((kind) =>
  ways.map(([way, trust, clear]) => [kind, way, trust, clear] as const)
)

interface World {
  readonly kind: (typeof kinds)[number]
  readonly server: grpc.ServerCredentials
  readonly client: Dial
  readonly options?: TunnelOptions
  readonly authenticate?: (opening: TunnelOpening) => Effect.Effect<string, AccessRefused>
}

/** A stub over a tunnel of the kind. */
const over = ({ authenticate, client, kind, options, server }: World) =>
  Effect.gen(function* () {
    const service = yield* TunnelService.make<string>({
      ...options,
      services,
      ...(authenticate === undefined ? {} : { authenticate })
    })
    const { address } = yield* listenWith(server, service.addTo)
    const to = { address, ...client }
    if (kind === "forward") return (yield* openForward(to, options)).client(EchoClient)
    yield* serveReverse(to, services, options)
    return (yield* service.reverse.awaitReverse()).client(EchoClient)
  })

const byCertificate = ({ certificate, secure }: TunnelOpening) =>
  secure && certificate !== undefined
    ? Effect.succeed(String(certificate.subject.CN))
    : Effect.fail(AccessRefused.unauthenticated("Come with a certificate"))

const secretly = (asked: () => void = () => undefined) =>
  grpc.credentials.createFromMetadataGenerator((_where, done) => {
    asked()
    const metadata = new grpc.Metadata()
    metadata.set("secret", "open-sesame")
    done(null, metadata)
  })

describe.each(kindsAndWays)("a %s tunnel over TLS and %s", (kind, _way, trust, unencrypted) => {
  it.live("carries calls", () =>
    Effect.gen(function* () {
      const client = yield* over({ kind, server: serving("server"), client: trust("authority") })
      const answer = yield* Effect.promise(() => unary(client, Buffer.from("q")))
      // The agent knows the server by its certificate; the server knows nobody.
      expect(String(answer.value)).toBe(`undefined true ${kind === "reverse" ? "gateway" : "undefined"}`)
    }).pipe(Effect.scoped)
  )

  it.live("with certificates at both ends names who opened it", () =>
    Effect.gen(function* () {
      const names: Array<string> = []
      const client = yield* over({
        kind,
        server: serving("server", "authority"),
        client: trust("authority", "client"),
        authenticate: (opening) =>
          Effect.tap(byCertificate(opening), (name) => Effect.sync(() => names.push(name)))
      })
      expect(names).toEqual(["agent seven"])
      const answer = yield* Effect.promise(() => unary(client, Buffer.from("q")))
      expect(String(answer.value)).toBe(`undefined true ${kind === "reverse" ? "gateway" : "agent seven"}`)
    }).pipe(Effect.scoped)
  )

  it.live.each([
    ["whose server another authority signed", "server", trust("stranger"), "not signed by an authority"],
    ["whose server is for another name", "elsewhere", trust("authority"), "for another name"],
    ["that is dialled without TLS", "server", unencrypted, "may want TLS"]
  ] as const)("%s is not opened, and a sentence says what to do", ([, name, client, sentence]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(over({ kind, server: serving(name), client }))
      expect(error).toMatchObject({ _tag: "TunnelOpenError", code: Code.UNAVAILABLE })
      expect(error.message).toContain(sentence)
      expect(error.message).not.toMatch(/\n|null/)
    }).pipe(Effect.scoped)
  )

  it.live.each([
    ["no certificate", trust("authority"), "wants a client's certificate"],
    ["one from another authority", trust("authority", "intruder"), "a client's certificate that it trusts"]
  ] as const)("to a server that wants a certificate, with %s, is not opened", ([, client, sentence]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(over({ kind, server: serving("server", "authority"), client }))
      expect(error.message).toContain(sentence)
    }).pipe(Effect.scoped)
  )

  it.live("carries the credentials of a call", () =>
    Effect.gen(function* () {
      const client = yield* over({ kind, server: serving("server"), client: trust("authority") })
      const answer = yield* Effect.promise(() =>
        unary(client, Buffer.from("q"), { call: { credentials: secretly() } })
      )
      expect(String(answer.value)).toContain("open-sesame")
    }).pipe(Effect.scoped)
  )
})

describe.each(kindsAndWays)("a %s tunnel in the clear over %s", (kind, _way, _trust, unencrypted) => {
  const clear = { kind, server: grpc.ServerCredentials.createInsecure(), client: unencrypted }

  it.live("refuses a call with credentials, and never asks for them", () =>
    Effect.gen(function* () {
      const client = yield* over(clear)
      let asked = 0
      const answer = yield* Effect.promise(() =>
        unary(client, Buffer.from("q"), { call: { credentials: secretly(() => asked++) } })
      )
      expect(answer.code).toBe(Code.UNAUTHENTICATED)
      expect(answer.details).toContain("open it with TLS")
      expect(asked).toBe(0)
    }).pipe(Effect.scoped)
  )

  it.live("carries them where it was told that it may", () =>
    Effect.gen(function* () {
      const client = yield* over({ ...clear, options: { insecureCredentials: true } })
      const answer = yield* Effect.promise(() =>
        unary(client, Buffer.from("q"), { call: { credentials: secretly() } })
      )
      expect(String(answer.value)).toBe("open-sesame false undefined")
    }).pipe(Effect.scoped)
  )
})

it.live.each(ways)(
  "TLS that is dialled over %s where there is none is not opened, and a sentence says what to do",
  ([, trust]) =>
    Effect.gen(function* () {
      const server = grpc.ServerCredentials.createInsecure()
      const error = yield* Effect.flip(over({ kind: "forward", server, client: trust("authority") }))
      expect(error.message).toContain("does not speak TLS on this port")
    }).pipe(Effect.scoped)
)

it.live("a tunnel inside a tunnel over TLS is as safe as the one around it", () =>
  Effect.gen(function* () {
    const service = yield* TunnelService.make({
      services: (self) => services.pipe(Services.add(self.definition, self.implementation))
    })
    const { address } = yield* listenWith(serving("server", "authority"), service.addTo)
    const outer = yield* openForward({ address, credentials: trusting("authority", "client") })
    const client = new grpc.Client("inner", insecure, { channelOverride: outer.grpc })
    const inner = (yield* openForward({ client })).client(EchoClient)
    const answer = yield* Effect.promise(() =>
      unary(inner, Buffer.from("q"), { call: { credentials: secretly() } })
    )
    expect(String(answer.value)).toBe("open-sesame true agent seven")
  }).pipe(Effect.scoped)
)

it.live("TLS is seen through the interceptors of a server", () =>
  Effect.gen(function* () {
    const service = yield* TunnelService.make()
    const { address } = yield* listenWith(serving("server"), service.addTo, {
      interceptors: [(_method, call) => new grpc.ServerInterceptingCall(call)]
    })
    yield* serveReverse({ address, credentials: trusting("authority") }, services)
    const client = (yield* service.reverse.awaitReverse()).client(EchoClient)
    const answer = yield* Effect.promise(() =>
      unary(client, Buffer.from("q"), { call: { credentials: secretly() } })
    )
    expect(String(answer.value)).toContain("open-sesame")
  }).pipe(Effect.scoped)
)
