import type { CancelReason } from "@curfew/reason"
import {
  awaitPeerGone,
  cancellable,
  completed,
  Endpoint,
  isActive,
  onPeerGone,
  PeerSignal,
  RequestContext,
  send
} from "@curfew/request"
import { Owner } from "@curfew/scope"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { effects } from "../batches.ts"
import { least, ours, type Primitive, raw } from "../primitive.ts"
import { bodies, isResult, result } from "./work.ts"

const now = { startImmediately: true } as const
const [, atOnce] = bodies[0] as (typeof bodies)[number]
const info = { method: "GET /row", kind: "request", transport: "http1" } as const

const withOwner = <E>(work: Effect.Effect<void, E, Owner>) => Effect.provide(work, Owner.layer())

const isValue = (answer: { readonly _tag: string; readonly value?: unknown }): boolean =>
  answer._tag === "Value" && isResult(answer.value)

/** Inside a call, where a handler asks. */
const inCall = <E>(work: Effect.Effect<void, E>) =>
  withOwner(
    Effect.flatMap(Endpoint.run(work, { ...info, peer: PeerSignal.makeUnsafe() }), (answer) =>
      answer._tag === "Value" ? Effect.void : Effect.die(new Error(`A wrong result: ${answer._tag}`))
    )
  )

/** What a program without Curfew would hold of its peer. */
interface RawPeer {
  readonly gone: Deferred.Deferred<CancelReason>
  readonly done: Deferred.Deferred<void>
  waiting: boolean
}

class Peer extends Context.Service<Peer, RawPeer>()("benchmarks/Peer") {}

const makePeer = (): RawPeer => ({
  gone: Deferred.makeUnsafe(),
  done: Deferred.makeUnsafe(),
  waiting: true
})

const withPeer = <E>(work: Effect.Effect<void, E, Peer>) => Effect.provideService(work, Peer, makePeer())

const ignore = () => Effect.void

/** The handler in a fiber of its own, and a listener that ends it when the peer leaves first. */
const answering = (work: Effect.Effect<number>) =>
  Effect.suspend(() => {
    const peer: { left?: () => void } = {}
    return Effect.flatMap(Effect.forkChild(work, now), (fiber) => {
      peer.left = () => fiber.interruptUnsafe()
      return Effect.map(Fiber.await(fiber), (exit) =>
        exit._tag === "Success"
          ? { _tag: "Value" as const, value: exit.value }
          : { _tag: "Failure" as const, cause: exit.cause }
      )
    })
  })

class Current extends Context.Service<Current, { leases: number; readonly id: string }>()(
  "benchmarks/Current"
) {}

const rawLease: Effect.Effect<void, never, Current | Scope.Scope> = Effect.flatMap(Current, (request) =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.sync(() => request.leases++),
      () => Effect.sync(() => request.leases--)
    )
  )
)

const inRequest = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  RequestContext.run({ id: "row", onEnd: ignore }, body)

const tell: (record: unknown) => Effect.Effect<void> = ignore

const inRawRequest = <A, E>(body: Effect.Effect<A, E, Current>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => ({ leases: 0, id: "row", startedAt: Date.now(), began: performance.now() })),
    (request) => Effect.provideService(body, Current, request),
    ({ began, id, leases, startedAt }) =>
      Effect.suspend(() => tell({ id, leases, startedAt, endedAfter: performance.now() - began }))
  )

export const rows: ReadonlyArray<Primitive> = [
  ...(["shield", "cancel"] as const).flatMap((policy) =>
    bodies.map(
      ([name, work]): Primitive => ({
        row: `request: Endpoint.run, ${policy}, ${name}`,
        ours: ours(() => {
          const handler = policy === "cancel" ? cancellable(work) : work
          return effects(
            () => Endpoint.run(handler, { ...info, peer: PeerSignal.makeUnsafe() }),
            isValue,
            withOwner
          )
        }),
        peers: [raw("forkChild, Fiber.await, a listener", () => effects(() => answering(work), isValue))]
      })
    )
  ),
  {
    row: "request: PeerSignal, made and complete",
    ours: ours(() =>
      effects(
        () => Effect.flatMap(PeerSignal.make, (peer) => peer.complete),
        (first) => first
      )
    ),
    peers: [
      raw("two Deferred, one of them done", () =>
        effects(
          () => Effect.flatMap(Effect.sync(makePeer), ({ done }) => Deferred.succeed(done, undefined)),
          (first) => first
        )
      )
    ]
  },
  {
    row: "request: isActive",
    ours: ours(() =>
      effects(
        () => isActive,
        (active) => active,
        inCall
      )
    ),
    peers: [
      raw("a service's field", () => {
        const active = Effect.map(Peer, ({ waiting }) => waiting)
        return effects(
          () => active,
          (is) => is,
          withPeer
        )
      })
    ]
  },
  ...(
    [
      ["awaitPeerGone", awaitPeerGone, (peer: RawPeer) => Deferred.await(peer.gone)],
      ["completed", completed, (peer: RawPeer) => Deferred.await(peer.done)]
    ] as ReadonlyArray<readonly [string, Effect.Effect<unknown>, (peer: RawPeer) => Effect.Effect<unknown>]>
  ).map(
    ([name, own, other]): Primitive => ({
      row: `request: ${name}, waited for and given up`,
      ours: ours(() =>
        effects(
          () =>
            Effect.flatMap(Effect.forkChild(own, now), (fiber) =>
              Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
            ),
          (exit) => exit._tag === "Failure",
          inCall
        )
      ),
      peers: [
        raw("Deferred.await", () =>
          effects(
            () =>
              Effect.flatMap(Effect.forkChild(Effect.flatMap(Peer, other), now), (fiber) =>
                Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
              ),
            (exit) => exit._tag === "Failure",
            withPeer
          )
        )
      ]
    })
  ),
  {
    row: "request: onPeerGone",
    ours: ours(() =>
      effects(() => Effect.scoped(Effect.andThen(onPeerGone(ignore), atOnce)), isResult, inCall)
    ),
    peers: [
      raw("addFinalizer, forkScoped of Deferred.await", () =>
        effects(
          () =>
            Effect.scoped(
              Effect.flatMap(Peer, ({ gone }) =>
                Effect.andThen(
                  Effect.andThen(
                    Effect.addFinalizer(() => (gone.effect === undefined ? Effect.void : ignore())),
                    Effect.forkScoped(Effect.flatMap(Deferred.await(gone), ignore))
                  ),
                  atOnce
                )
              )
            ),
          isResult,
          withPeer
        )
      )
    ]
  },
  {
    row: "request: send",
    ours: ours(() =>
      effects(
        () => send(atOnce),
        (sent) => sent._tag === "Sent" && sent.value === result,
        inCall
      )
    ),
    peers: [
      raw("a look at the Deferred before and after", () =>
        effects(
          () =>
            Effect.flatMap(Peer, ({ gone }) =>
              gone.effect !== undefined
                ? Effect.map(Deferred.await(gone), (reason) => ({ _tag: "PeerGone" as const, reason }))
                : Effect.catchCause(
                    Effect.map(atOnce, (value) => ({ _tag: "Sent" as const, value })),
                    (cause) =>
                      gone.effect === undefined
                        ? Effect.failCause(cause)
                        : Effect.map(Deferred.await(gone), (reason) => ({
                            _tag: "PeerGone" as const,
                            reason
                          }))
                  )
            ),
          (sent) => sent._tag === "Sent" && sent.value === result,
          withPeer
        )
      )
    ],
    limit: least("a fork of the write, which the peer's leaving can end, and its join", () =>
      effects(
        () =>
          Effect.flatMap(Effect.forkChild(atOnce, now), (fiber) =>
            Effect.map(Fiber.join(fiber), (value) => ({ _tag: "Sent" as const, value }))
          ),
        (sent) => sent.value === result
      )
    )
  },
  {
    row: "request: RequestContext.run",
    ours: ours(() => effects(() => inRequest(atOnce), isResult)),
    peers: [raw("acquireUseRelease, provideService", () => effects(() => inRawRequest(atOnce), isResult))]
  },
  {
    row: "request: RequestContext lease",
    ours: ours(() =>
      effects(
        () =>
          Effect.scoped(
            Effect.flatMap(RequestContext.current, (request) =>
              Effect.as(request._tag === "Some" ? request.value.lease : Effect.die("no request"), result)
            )
          ),
        isResult,
        inRequest
      )
    ),
    peers: [
      raw("scoped, acquireRelease of a count", () =>
        effects(() => Effect.scoped(Effect.as(rawLease, result)), isResult, inRawRequest)
      )
    ]
  }
]
