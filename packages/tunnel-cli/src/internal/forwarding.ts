/**
 * Every call that comes in becomes one owned piece of work, with a name that a person understands in the live tree and
 * in the report of a shutdown.
 *
 * **Invariants**
 * 1. A call that was taken is relayed or refused; it is on the desk exactly while its relay runs.
 * 2. The work hangs below the owner of the program: a shutdown lets it end, then cancels it.
 */
import { CancelReason, currentReason, describe } from "@curfew/reason"
import { Instant, Owner, TaskScope } from "@curfew/scope"
import { type ChannelInterface, status as Code } from "@grpc/grpc-js"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Desk, LiveCall } from "./desk.ts"
import type { Log } from "./log.ts"
import { type Incoming, type RelayEnd, type Relayed, refuse, relay } from "./relay.ts"

/** Where a call goes. */
interface Road {
  readonly key: string
  readonly channel: ChannelInterface
  readonly rephrase: Relayed["rephrase"]
}

export interface Forwarding {
  readonly take: (incoming: Incoming, road: Road) => void
  readonly refuse: (incoming: Incoming, code: number, details: string) => void
}

export const makeForwarding = (desk: Desk, log: Log): Effect.Effect<Forwarding, never, Owner> =>
  Effect.gen(function* () {
    const spawn = yield* TaskScope.makeRuntime(yield* Owner)
    const clock = yield* Clock.Clock

    const note = (call: LiveCall, end: RelayEnd): void => {
      desk.end(call, end)
      const { bytes, key, method, peer, startedAt } = call
      const { cancelled, code, details } = end
      log.debug(cancelled === undefined ? "call ended" : "call cancelled", {
        method,
        ...(key === "" ? {} : { key }),
        peer,
        code: Code[code] ?? "UNKNOWN",
        ...(cancelled === undefined
          ? code === Code.OK
            ? {}
            : { details }
          : { by: cancelled._tag, reason: describe(cancelled) }),
        requests: bytes.requests,
        responses: bytes.responses,
        ms: Math.round(Instant.nowOf(clock) - startedAt)
      })
    }

    const refused = (incoming: Incoming, code: number, details: string): void => {
      desk.totals.refused++
      log.debug("call refused", {
        method: incoming.getPath(),
        peer: incoming.getPeer(),
        code: Code[code] ?? "",
        details
      })
      refuse(incoming, code, details)
    }

    const take = (incoming: Incoming, { channel, key, rephrase }: Road): void => {
      const method = incoming.getPath()
      const call: LiveCall = {
        method,
        key,
        peer: incoming.getPeer(),
        bytes: { requests: 0, responses: 0 },
        startedAt: Instant.nowOf(clock)
      }
      const work = Effect.onExit(relay({ incoming, channel, rephrase, bytes: call.bytes }), (exit) =>
        Effect.map(currentReason, (reason) =>
          note(
            call,
            exit._tag === "Success"
              ? exit.value
              : {
                  code: Code.UNAVAILABLE,
                  details: "",
                  cancelled: Option.getOrElse(reason, () => CancelReason.Unknown())
                }
          )
        )
      )
      desk.begin(call)
      const task = spawn(work, {
        name: key === "" ? method : `${method} via ${key}`,
        onNeverStarted: Effect.sync(() => {
          desk.end(call, {
            code: Code.UNAVAILABLE,
            details: "",
            cancelled: CancelReason.Shutdown({ phase: "force" })
          })
          refuse(incoming, Code.UNAVAILABLE, "The tunnel is shutting down")
        })
      })
      if (task === undefined) {
        desk.end(call, {
          code: Code.UNAVAILABLE,
          details: "",
          cancelled: CancelReason.Shutdown({ phase: "drain" })
        })
        refuse(incoming, Code.UNAVAILABLE, "The tunnel is shutting down")
      }
    }

    return { take, refuse: refused }
  })
