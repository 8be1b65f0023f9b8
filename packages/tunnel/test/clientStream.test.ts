import { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import { status as Code, Metadata } from "@grpc/grpc-js"
import * as fc from "fast-check"
import {
  type Action,
  type Event,
  initial,
  type State,
  step,
  takesData
} from "../src/internal/clientStream.ts"
import { makeStatus } from "../src/internal/rpcStatus.ts"
import { lines, tabulate } from "./support/machine.ts"

const reason = CancelReason.Requested({ message: "test" })
const ok = makeStatus(Code.OK, "OK")
const failed = makeStatus(Code.ABORTED, "no")
const cancelled = makeStatus(Code.CANCELLED, "stop")

const states: Readonly<Record<string, State>> = {
  "Idle()": { _tag: "Idle", halfClosed: false },
  "Idle(e)": { _tag: "Idle", halfClosed: true },
  "Open()": { _tag: "Open", headersSeen: false, halfClosed: false },
  "Open(h)": { _tag: "Open", headersSeen: true, halfClosed: false },
  "Open(e)": { _tag: "Open", headersSeen: false, halfClosed: true },
  "Open(he)": { _tag: "Open", headersSeen: true, halfClosed: true },
  Draining: { _tag: "Draining", status: ok },
  "Ended(peer)": { _tag: "Ended", by: "peer", status: ok, reason: undefined, serverOpen: false },
  "Ended(caller)": { _tag: "Ended", by: "caller", status: cancelled, reason, serverOpen: true },
  Closed: { _tag: "Closed" }
}

const events: Readonly<Record<string, Event>> = {
  Start: { _tag: "Start" },
  Send: { _tag: "Send", message: Buffer.from("m") },
  HalfClose: { _tag: "HalfClose" },
  Cancel: { _tag: "Cancel", status: cancelled, reason },
  Deadline: { _tag: "Deadline", reason },
  Fault: { _tag: "Fault", status: failed, reason },
  TunnelGone: { _tag: "TunnelGone", status: makeStatus(Code.UNAVAILABLE, "gone"), reason },
  Headers: { _tag: "Headers", metadata: new Metadata() },
  "Close(OK)": { _tag: "Close", status: ok, unread: false, truncated: false },
  "Close(OK, unread)": { _tag: "Close", status: ok, unread: true, truncated: false },
  "Close(OK, cut)": { _tag: "Close", status: ok, unread: false, truncated: true },
  "Close(error, cut)": { _tag: "Close", status: failed, unread: false, truncated: true },
  Drained: { _tag: "Drained" },
  Finalize: { _tag: "Finalize" }
}

const nameOf = (state: State): string => {
  switch (state._tag) {
    case "Idle":
      return `Idle(${state.halfClosed ? "e" : ""})`
    case "Open":
      return `Open(${state.headersSeen ? "h" : ""}${state.halfClosed ? "e" : ""})`
    case "Ended":
      return `Ended(${state.by} ${state.status.code}${state.serverOpen ? ", server open" : ""})`
    default:
      return state._tag
  }
}

const actionOf = (action: Action): string => {
  switch (action._tag) {
    case "Abort":
      return action.cancel ? `Abort(cancel ${action.reason?._tag})` : "Abort"
    case "Late":
      return `Late(${action.what})`
    case "Finish":
      return `Finish(${action.reason === undefined ? "" : "cancel"})`
    case "DeliverStatus":
      return `DeliverStatus(${action.status.code})`
    default:
      return action._tag
  }
}

const table = lines(`
  Idle() + Start -> Open(): SendNewStream
  Idle() + Send -> =: QueueMessage
  Idle() + HalfClose -> Idle(e): QueueHalfClose
  Idle() + Cancel -> Ended(caller 1): Finish(cancel)
  Idle() + Deadline -> Ended(deadline 4): Finish(cancel)
  Idle() + Fault -> Ended(fault 10): Finish(cancel)
  Idle() + TunnelGone -> Ended(tunnel 14): Finish(cancel)
  Idle() + Headers -> =
  Idle() + Close(OK) -> =
  Idle() + Close(OK, unread) -> =
  Idle() + Close(OK, cut) -> =
  Idle() + Close(error, cut) -> =
  Idle() + Drained -> =
  Idle() + Finalize -> Closed: Abort, DeliverStatus(14)
  Idle(e) + Start -> Open(e): SendNewStream
  Idle(e) + Send -> =
  Idle(e) + HalfClose -> =
  Idle(e) + Cancel -> Ended(caller 1): Finish(cancel)
  Idle(e) + Deadline -> Ended(deadline 4): Finish(cancel)
  Idle(e) + Fault -> Ended(fault 10): Finish(cancel)
  Idle(e) + TunnelGone -> Ended(tunnel 14): Finish(cancel)
  Idle(e) + Headers -> =
  Idle(e) + Close(OK) -> =
  Idle(e) + Close(OK, unread) -> =
  Idle(e) + Close(OK, cut) -> =
  Idle(e) + Close(error, cut) -> =
  Idle(e) + Drained -> =
  Idle(e) + Finalize -> Closed: Abort, DeliverStatus(14)
  Open() + Start -> =
  Open() + Send -> =: QueueMessage
  Open() + HalfClose -> Open(e): QueueHalfClose
  Open() + Cancel -> Ended(caller 1, server open): Finish(cancel)
  Open() + Deadline -> Ended(deadline 4, server open): Finish(cancel)
  Open() + Fault -> Ended(fault 10, server open): Finish(cancel)
  Open() + TunnelGone -> Ended(tunnel 14, server open): Finish(cancel)
  Open() + Headers -> Open(h): DeliverHeaders
  Open() + Close(OK) -> Ended(peer 0): Finish()
  Open() + Close(OK, unread) -> Draining
  Open() + Close(OK, cut) -> Ended(fault 13): Finish(cancel)
  Open() + Close(error, cut) -> Ended(peer 10): Finish()
  Open() + Drained -> =
  Open() + Finalize -> Closed: Abort(cancel Unknown), DeliverStatus(14)
  Open(h) + Start -> =
  Open(h) + Send -> =: QueueMessage
  Open(h) + HalfClose -> Open(he): QueueHalfClose
  Open(h) + Cancel -> Ended(caller 1, server open): Finish(cancel)
  Open(h) + Deadline -> Ended(deadline 4, server open): Finish(cancel)
  Open(h) + Fault -> Ended(fault 10, server open): Finish(cancel)
  Open(h) + TunnelGone -> Ended(tunnel 14, server open): Finish(cancel)
  Open(h) + Headers -> =
  Open(h) + Close(OK) -> Ended(peer 0): Finish()
  Open(h) + Close(OK, unread) -> Draining
  Open(h) + Close(OK, cut) -> Ended(fault 13): Finish(cancel)
  Open(h) + Close(error, cut) -> Ended(peer 10): Finish()
  Open(h) + Drained -> =
  Open(h) + Finalize -> Closed: Abort(cancel Unknown), DeliverStatus(14)
  Open(e) + Start -> =
  Open(e) + Send -> =
  Open(e) + HalfClose -> =
  Open(e) + Cancel -> Ended(caller 1, server open): Finish(cancel)
  Open(e) + Deadline -> Ended(deadline 4, server open): Finish(cancel)
  Open(e) + Fault -> Ended(fault 10, server open): Finish(cancel)
  Open(e) + TunnelGone -> Ended(tunnel 14, server open): Finish(cancel)
  Open(e) + Headers -> Open(he): DeliverHeaders
  Open(e) + Close(OK) -> Ended(peer 0): Finish()
  Open(e) + Close(OK, unread) -> Draining
  Open(e) + Close(OK, cut) -> Ended(fault 13): Finish(cancel)
  Open(e) + Close(error, cut) -> Ended(peer 10): Finish()
  Open(e) + Drained -> =
  Open(e) + Finalize -> Closed: Abort(cancel Unknown), DeliverStatus(14)
  Open(he) + Start -> =
  Open(he) + Send -> =
  Open(he) + HalfClose -> =
  Open(he) + Cancel -> Ended(caller 1, server open): Finish(cancel)
  Open(he) + Deadline -> Ended(deadline 4, server open): Finish(cancel)
  Open(he) + Fault -> Ended(fault 10, server open): Finish(cancel)
  Open(he) + TunnelGone -> Ended(tunnel 14, server open): Finish(cancel)
  Open(he) + Headers -> =
  Open(he) + Close(OK) -> Ended(peer 0): Finish()
  Open(he) + Close(OK, unread) -> Draining
  Open(he) + Close(OK, cut) -> Ended(fault 13): Finish(cancel)
  Open(he) + Close(error, cut) -> Ended(peer 10): Finish()
  Open(he) + Drained -> =
  Open(he) + Finalize -> Closed: Abort(cancel Unknown), DeliverStatus(14)
  Draining + Start -> =
  Draining + Send -> =: Late(message)
  Draining + HalfClose -> =: Late(halfClose)
  Draining + Cancel -> Ended(caller 1): Finish(cancel)
  Draining + Deadline -> Ended(deadline 4): Finish(cancel)
  Draining + Fault -> Ended(fault 10): Finish(cancel)
  Draining + TunnelGone -> Ended(tunnel 14): Finish(cancel)
  Draining + Headers -> =
  Draining + Close(OK) -> =
  Draining + Close(OK, unread) -> =
  Draining + Close(OK, cut) -> =
  Draining + Close(error, cut) -> =
  Draining + Drained -> Ended(peer 0): Finish()
  Draining + Finalize -> Closed: Abort, DeliverStatus(14)
  Ended(peer) + Start -> =
  Ended(peer) + Send -> =: Late(message)
  Ended(peer) + HalfClose -> =: Late(halfClose)
  Ended(peer) + Cancel -> =
  Ended(peer) + Deadline -> =
  Ended(peer) + Fault -> =
  Ended(peer) + TunnelGone -> =
  Ended(peer) + Headers -> =
  Ended(peer) + Close(OK) -> =
  Ended(peer) + Close(OK, unread) -> =
  Ended(peer) + Close(OK, cut) -> =
  Ended(peer) + Close(error, cut) -> =
  Ended(peer) + Drained -> =
  Ended(peer) + Finalize -> Closed: Abort, DeliverStatus(0)
  Ended(caller) + Start -> =
  Ended(caller) + Send -> =: Late(message)
  Ended(caller) + HalfClose -> =: Late(halfClose)
  Ended(caller) + Cancel -> =
  Ended(caller) + Deadline -> =
  Ended(caller) + Fault -> =
  Ended(caller) + TunnelGone -> =
  Ended(caller) + Headers -> =
  Ended(caller) + Close(OK) -> =
  Ended(caller) + Close(OK, unread) -> =
  Ended(caller) + Close(OK, cut) -> =
  Ended(caller) + Close(error, cut) -> =
  Ended(caller) + Drained -> =
  Ended(caller) + Finalize -> Closed: Abort(cancel Requested), DeliverStatus(1)
  Closed + Start -> =
  Closed + Send -> =: Late(message)
  Closed + HalfClose -> =: Late(halfClose)
  Closed + Cancel -> =
  Closed + Deadline -> =
  Closed + Fault -> =
  Closed + TunnelGone -> =
  Closed + Headers -> =
  Closed + Close(OK) -> =
  Closed + Close(OK, unread) -> =
  Closed + Close(OK, cut) -> =
  Closed + Close(error, cut) -> =
  Closed + Drained -> =
  Closed + Finalize -> =
`)

describe("the machine of a stream at the tunnel client", () => {
  it("does exactly this, for every state and every event", () => {
    expect(tabulate(states, events, step, nameOf, actionOf)).toEqual(table)
  })

  it("takes response data exactly while it is open", () => {
    const taking = Object.keys(states).filter((name) => takesData(states[name] as State))
    expect(taking).toEqual(["Open()", "Open(h)", "Open(e)", "Open(he)"])
  })

  it("delivers one status, finishes once, and cancels only what the server believes open, whatever happens", () => {
    const any = fc.array(fc.constantFrom(...Object.values(events)), { maxLength: 30 })
    fc.assert(
      fc.property(any, (happened) => {
        let state: State = initial
        const seen: Array<Action> = []
        let onTheWire = false
        let closedByServer = false
        for (const event of [...happened, { _tag: "Finalize" } as const]) {
          if (state._tag === "Open" && event._tag === "Close") closedByServer = true
          const [next, actions] = step(state, event)
          seen.push(...actions)
          onTheWire ||= actions.some((action) => action._tag === "SendNewStream")
          state = next
        }
        const statuses = seen.filter((action) => action._tag === "DeliverStatus")
        const cancels = seen.filter((action) => action._tag === "Abort" && action.cancel)
        expect(statuses.length).toBe(1)
        expect(seen.filter((action) => action._tag === "Finish").length).toBeLessThanOrEqual(1)
        expect(cancels.length).toBe(onTheWire && !closedByServer ? 1 : 0)
      })
    )
  })
})
