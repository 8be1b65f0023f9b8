/**
 * A tunnel's whole life over a carrier, for either role.
 *
 * **Invariants**
 * 1. Rule `settings-first`: the tunnel server's settings are queued before the first frame is read.
 * 2. A tunnel is ready once, or its opening failed; nobody sees a channel before the settings have arrived.
 * 3. The life ends when the tunnel's end is decided; leaving its scope is what tears it down.
 */
import { CancelReason } from "@curfew/reason"
import { boundedAt } from "@curfew/scope/bounded"
import { status as Code } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Services } from "../Services.ts"
import type { Authorize, TunnelOrigin } from "../TunnelAuth.ts"
import type { ClientConstructor, TunnelChannel, TunnelHandle } from "../TunnelChannel.ts"
import { TunnelLost, TunnelOpenError } from "../TunnelError.ts"
import type { Side, TunnelEnd, TunnelKind } from "../TunnelEvent.ts"
import type { TunnelOptions } from "../TunnelOptions.ts"
import type { Admission } from "./admission.ts"
import { rememberChannel } from "./callInfo.ts"
import type { Carrier, CarrierEnd } from "./carrier.ts"
import { type Source, TunnelGrpcChannel } from "./channel.ts"
import { ClientEngine } from "./clientEngine.ts"
import { tunnelId } from "./frame.ts"
import { asked } from "./gate.ts"
import { Intake } from "./intake.ts"
import { limitsOf } from "./limits.ts"
import { drainingDetails, type Link } from "./link.ts"
import { makeLink, nextTunnelId } from "./makeLink.ts"
import { ServerEngine } from "./serverEngine.ts"

const endOf = ({ code, details }: CarrierEnd): TunnelEnd =>
  code === Code.OK ? { _tag: "ClosedByPeer" } : { _tag: "Lost", error: new TunnelLost({ code, details }) }

const requested = /* @__PURE__ */ CancelReason.Requested({ message: "the tunnel was closed" })

const linkOver = (carrier: Carrier, side: Side, kind: TunnelKind, options: TunnelOptions) =>
  makeLink({
    id: nextTunnelId(),
    side,
    kind,
    carrier,
    limits: limitsOf(options),
    observer: options.observer
  })

const handleOf = (link: Link, over: Deferred.Deferred<TunnelEnd>, streams: () => number): TunnelHandle => {
  const closed = Deferred.await(over)
  return {
    id: link.id,
    kind: link.kind,
    peer: link.carrier.peer,
    metadata: link.carrier.metadata,
    closed,
    close: (reason = requested) =>
      Effect.suspend(() => {
        link.close({ _tag: "ClosedHere", reason })
        return Effect.asVoid(closed)
      }),
    draining: Effect.sync(() => link.draining),
    awaitDraining: Deferred.await(link.drained),
    drain: (limit) =>
      Effect.suspend(() => {
        link.drain()
        const ended = Effect.andThen(link.calls.idle(), link.outbox.flushed)
        return Effect.map(Effect.timeoutOption(ended, limit ?? Duration.infinity), Option.isSome)
      }),
    stats: Effect.sync(() => ({
      streams: streams(),
      deadlines: link.deadlines.size,
      stalled: link.held.stalled,
      heldBytes: link.held.bytes,
      sentBytes: link.held.sent,
      receivedBytes: link.held.received,
      ...link.counters
    }))
  }
}

/** Completes `over` after everything registered later has been cleaned up. */
const settleLast = (over: Deferred.Deferred<TunnelEnd>, end: () => TunnelEnd | undefined) =>
  Effect.addFinalizer(() => {
    const outcome: TunnelEnd = end() ?? { _tag: "ClosedHere", reason: requested }
    return Deferred.succeed(over, outcome)
  })

/** Has the carrier's frames go to the engine, and its end to the link, until the scope is left. */
const listen = (link: Link, { receive, receivePiece }: ClientEngine | ServerEngine) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { outbox } = link
      const intake = new Intake(
        receive,
        receivePiece,
        () => outbox.flush(),
        () => outbox.alone()
      )
      const ended = (end: CarrierEnd): void => {
        intake.drain()
        link.close(endOf(end))
      }
      link.carrier.listen(intake.frame, ended, intake.piece)
      return intake
    }),
    (intake) => Effect.sync(() => intake.stop())
  )

/** Runs the calling end until the tunnel ends. `ready` gets the channel once calls can be made. */
export const runClient = (
  carrier: Carrier,
  kind: TunnelKind,
  options: TunnelOptions,
  ready: (channel: TunnelChannel, engine: ClientEngine) => Effect.Effect<unknown, never, Scope.Scope>
): Effect.Effect<void, TunnelOpenError, Scope.Scope> =>
  Effect.gen(function* () {
    const over = Deferred.makeUnsafe<TunnelEnd>()
    let link: Link | undefined
    yield* settleLast(over, () => link?.end)
    link = yield* linkOver(carrier, "client", kind, options)
    const engine = new ClientEngine(link)
    const { ending } = link
    yield* listen(link, engine)
    if (!carrier.negotiates) engine.assume()
    yield* Effect.timeoutOrElse(engine.ready, {
      duration: link.limits.openTimeout,
      orElse: () =>
        Effect.fail(
          new TunnelOpenError({ code: Code.DEADLINE_EXCEEDED, details: "The peer sent no settings in time" })
        )
    })
    const handle = handleOf(link, over, () => engine.size)
    const source = sourceOf(link, engine)
    const channel = new TunnelGrpcChannel(source)
    const tunnel: TunnelChannel = {
      ...handle,
      grpc: channel,
      client: <C>(Client: ClientConstructor<C>) => channel.stub(Client)
    }
    rememberChannel(link.authContext, tunnel)
    yield* ready(tunnel, engine)
    yield* Deferred.await(ending)
  }).pipe(
    // The peer learns why its tunnel was not opened, before the scope closes it without a word.
    Effect.tapError(({ code, details }) =>
      boundedAt(carrier.end({ code, details }), { name: "tunnel carrier" })
    )
  )

const sourceOf = (link: Link, engine: ClientEngine): Source => ({
  target: link.carrier.peer,
  pick: () => (engine.available ? engine : undefined),
  ready: () => engine.available,
  refusal: () => [Code.UNAVAILABLE, link.end === undefined ? drainingDetails : "The tunnel is closed"],
  over: () => link.end !== undefined,
  note: link.note,
  // What has happened once is no change any more: a watcher that comes later waits for what is left to happen.
  changed: Effect.suspend(() => {
    const ending = Deferred.await(link.ending)
    return link.draining ? ending : Effect.raceFirst(ending, Deferred.await(link.drained))
  })
})

/** Runs the serving end until the tunnel ends. */
export const runServer = <I>(
  carrier: Carrier,
  kind: TunnelKind,
  services: Services,
  admission: Admission,
  options: TunnelOptions & { readonly authorize?: Authorize<I> },
  ready: (handle: TunnelHandle) => Effect.Effect<unknown>
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function* () {
    const over = Deferred.makeUnsafe<TunnelEnd>()
    let link: Link | undefined
    yield* settleLast(over, () => link?.end)
    link = yield* linkOver(carrier, "server", kind, options)
    const engine = new ServerEngine(link, services, admission)
    const { authorize } = options
    if (authorize !== undefined) {
      // The identity is what the hook beside this one gave.
      const tunnel = link.origin as TunnelOrigin<I>
      const { authTimeout } = link.limits
      link.authorize = (method, metadata) =>
        asked("authorize", `a call of ${method}`, authTimeout, () => authorize({ method, metadata, tunnel }))
    }
    const { ending, limits, outbox } = link
    if (carrier.negotiates) {
      outbox.urgent({ _tag: "Settings", id: tunnelId, revisions: limits.revisions, window: limits.window })
    }
    // Behind the settings, which are the first frame of every tunnel.
    const ignore = admission.onRefuse(() => link?.drain())
    yield* Effect.addFinalizer(() => Effect.sync(ignore))
    yield* listen(link, engine)
    yield* ready(handleOf(link, over, () => engine.size))
    yield* Deferred.await(ending)
  })
