/**
 * The life of a tunnel's plumbing: what it starts, and the order in which it goes.
 *
 * **Invariants**
 * 1. On the way out, in this order: every stream is closed with the end's reason and awaited; the writer sends
 *    what they left and ends; the carrier ends; `TunnelClosed` is observed.
 * 2. Each of these waits is bounded by the clean-up budget.
 * 3. The writer is masked. A cancel of the tunnel reaches the streams at once, and the writer outlives it until
 *    their last frames are out: `finish` is what ends it.
 */
import { currentReason } from "@curfew/reason"
import { forkCellUnsafe } from "@curfew/reason/CancelCell"
import { Instant, TaskScope } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { TunnelEnd } from "../TunnelEvent.ts"
import type { CarrierEnd } from "./carrier.ts"
import { Link, type Setup } from "./link.ts"
import { run } from "./pump.ts"
import { StreamsCell } from "./streamsCell.ts"

let tunnels = 0

/** Numbers the tunnels of this process. */
export const nextTunnelId = (): number => ++tunnels

/** What the peer's outer call is told: nothing on a clean close, the violation otherwise. */
const parting = (end: TunnelEnd | undefined): CarrierEnd | undefined =>
  end?._tag === "Violated" ? { code: 13, details: end.error.message } : undefined

/** Makes a link that lives as long as the surrounding `Scope`. */
export const makeLink = (setup: Setup): Effect.Effect<Link, never, Scope.Scope> =>
  Effect.gen(function* () {
    const link = new Link(setup, yield* Clock.Clock)
    const openedAt = yield* Instant.now
    const { id, kind, side } = link
    link.observe?.({ _tag: "TunnelOpened", tunnel: id, side, kind, peer: link.carrier.peer })
    yield* Effect.addFinalizer(() =>
      Effect.gen(function* () {
        yield* closeHere(link)
        yield* boundedAt(link.carrier.end(parting(link.end)), { name: "tunnel carrier" })
        const duration = Duration.millis((yield* Instant.now) - openedAt)
        link.observe?.({ _tag: "TunnelClosed", tunnel: id, side, end: link.end as TunnelEnd, duration })
      })
    )
    const plumbing = yield* TaskScope.make({ name: `tunnel ${id} plumbing` })
    const startNote = yield* TaskScope.makeRuntime(plumbing)
    link.note = (work, name) => startNote(work, { name }) !== undefined
    yield* Effect.addFinalizer(() => Effect.sync(() => link.outbox.finish()))
    yield* Effect.orDie(
      plumbing.spawn(Effect.uninterruptible(run(link.outbox, link.carrier)), { name: "writer" })
    )
    yield* Effect.orDie(
      plumbing.spawn(
        link.deadlines.run(() => link.now()),
        { name: "deadlines" }
      )
    )
    const cell = yield* Effect.withFiberSucceed((fiber) =>
      forkCellUnsafe(fiber, "tasks", `tunnel ${id}`, undefined, StreamsCell)
    )
    cell.held = link.held
    const streams = yield* TaskScope.makeIn(() => cell)
    const start = yield* TaskScope.makeRuntime(streams)
    link.cell = cell
    link.spawn = (work, name) => start(work, { name })
    yield* Effect.addFinalizer(() =>
      Effect.gen(function* () {
        yield* closeHere(link)
        link.closeStreams(Option.getOrElse(yield* currentReason, () => link.reason))
        yield* streams.cancel(link.reason)
        yield* link.streamsClosed
      })
    )
    return link
  })

/** Decides the end as this end's own, unless it is decided already. */
const closeHere = (link: Link): Effect.Effect<void> =>
  Effect.map(currentReason, (reason) => {
    if (link.end !== undefined) return
    link.close({ _tag: "ClosedHere", reason: Option.getOrElse(reason, () => link.reason) })
  })
