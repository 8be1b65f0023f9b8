/** One end of a tunnel under test, with a peer that speaks frames. */

import { TaskScope } from "@curfew/scope"
import type * as grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import {
  Services,
  type TunnelChannel,
  type TunnelEvent,
  type TunnelHandle,
  type TunnelOptions
} from "../../src/index.ts"
import { Admission } from "../../src/internal/admission.ts"
import { type ClientFrame, type NewStream, type ServerFrame, tunnelId } from "../../src/internal/frame.ts"
import { runClient, runServer } from "../../src/internal/tunnel.ts"
import { definition, EchoClient, type Handlers, implementation } from "./echo.ts"
import { fakeClient, fakeServer, type PeerOptions } from "./memory.ts"

export type CloseFrame = Extract<ServerFrame, { _tag: "CloseStream" }>

/** Reads code and message out of an encoded status. */
export { statusFromWire } from "../../src/internal/rpcStatus.ts"

/** Runs one end's life in a scope of the test's, and gives its handle once it is there. */
export const spawned = <H>(
  life: (ready: (handle: H) => Effect.Effect<unknown>) => Effect.Effect<void, unknown, Scope.Scope>
): Effect.Effect<Deferred.Deferred<H, unknown>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const tasks = yield* TaskScope.make({ name: "test" })
    const opened = Deferred.makeUnsafe<H, unknown>()
    const work = Effect.scoped(life((handle) => Deferred.succeed(opened, handle)))
    yield* Effect.orDie(tasks.spawn(Effect.catch(work, (error) => Deferred.fail(opened, error))))
    return opened
  })

/** A tunnel server with the echo service; the test is its tunnel client. */
export const serverEnd = (
  options: TunnelOptions & PeerOptions & { readonly handlers?: Partial<Handlers> } = {}
) =>
  Effect.gen(function* () {
    const events: Array<TunnelEvent> = []
    const peer = fakeClient(options)
    const services = Services.empty.pipe(Services.add(definition, implementation(options.handlers)))
    const admission = new Admission()
    const observer = (event: TunnelEvent): void => void events.push(event)
    const opened = yield* spawned<TunnelHandle>((ready) =>
      runServer(peer.carrier, "forward", services, admission, { ...options, observer }, ready)
    )
    const handle = yield* Effect.orDie(Deferred.await(opened))
    const open = (id: number, method: string, more: Partial<NewStream> = {}): void =>
      peer.send({ _tag: "NewStream", id, method, headers: undefined, window: 65_536, revision: 1, ...more })
    const closeOf = (id: number): Effect.Effect<CloseFrame> =>
      peer.next((frame): frame is CloseFrame => frame._tag === "CloseStream" && frame.id === id)
    /** A whole unary call, as a peer sends it. */
    const call = (id: number, text: string): void => {
      open(id, "/curfew.test.Echo/Unary")
      peer.send({ _tag: "Message", id, size: text.length, data: Buffer.from(text) })
      peer.send({ _tag: "HalfClose", id })
    }
    return { ...peer, handle, events, admission, open, closeOf, call }
  })

/** A tunnel client with the echo stub; the test is its tunnel server. */
export const clientEnd = (options: TunnelOptions & PeerOptions & { readonly settings?: ServerFrame } = {}) =>
  Effect.gen(function* () {
    const events: Array<TunnelEvent> = []
    const peer = fakeServer(options)
    const observer = (event: TunnelEvent): void => void events.push(event)
    const opened = yield* spawned<TunnelChannel>((ready) =>
      runClient(peer.carrier, "forward", { ...options, observer }, ready)
    )
    peer.send(options.settings ?? { _tag: "Settings", id: tunnelId, revisions: [0, 1], window: 65_536 })
    const channel = yield* Deferred.await(opened)
    const sent = <T extends ClientFrame["_tag"]>(id: number, tag: T) =>
      peer.next((frame): frame is Extract<ClientFrame, { _tag: T }> => frame._tag === tag && frame.id === id)
    return { ...peer, channel, client: channel.client(EchoClient), events, sent }
  })

/** Resolves with the status of a call. */
export const statusOf = (call: {
  on(event: "status", listener: (status: grpc.StatusObject) => void): unknown
}): Promise<grpc.StatusObject> => new Promise((resolve) => call.on("status", resolve))
