import { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import { status as Code } from "@grpc/grpc-js"
import * as fc from "fast-check"
import { makeStatus } from "../src/internal/rpcStatus.ts"
import {
  type Action,
  type Event,
  initial,
  type State,
  step,
  takesData
} from "../src/internal/serverStream.ts"
import { lines, tabulate } from "./support/machine.ts"

const reason = CancelReason.ClientGone({ transport: "tunnel" })
const ok = makeStatus(Code.OK, "OK")
const failed = makeStatus(Code.ABORTED, "no")
const request = Buffer.from("r")

const ended = (by: Extract<State, { _tag: "Ended" }>["by"], started: boolean): State => ({
  _tag: "Ended",
  by,
  status: by === "handler" ? ok : failed,
  reason: by === "handler" ? undefined : reason,
  started
})

const states: Readonly<Record<string, State>> = {
  "Gathering()": { _tag: "Gathering", request: undefined },
  "Gathering(r)": { _tag: "Gathering", request },
  "Running()": { _tag: "Running", headersSent: false, requestEnded: false },
  "Running(h)": { _tag: "Running", headersSent: true, requestEnded: false },
  "Running(e)": { _tag: "Running", headersSent: false, requestEnded: true },
  "Running(he)": { _tag: "Running", headersSent: true, requestEnded: true },
  Finishing: { _tag: "Finishing", status: ok },
  "Ended(handler)": ended("handler", true),
  "Ended(peer)": ended("peer", true),
  "Ended(deadline)": ended("deadline", true),
  "Ended(fault, unstarted)": ended("fault", false),
  "Ended(tunnel)": ended("tunnel", true),
  "Closed(handler)": { _tag: "Closed", by: "handler" },
  "Closed(peer)": { _tag: "Closed", by: "peer" }
}

const events: Readonly<Record<string, Event>> = {
  Request: { _tag: "Request", message: request },
  HalfClose: { _tag: "HalfClose", truncated: false },
  "HalfClose(cut)": { _tag: "HalfClose", truncated: true },
  Cancel: { _tag: "Cancel", reason },
  Deadline: { _tag: "Deadline", reason },
  Fault: { _tag: "Fault", status: failed, reason },
  TunnelGone: { _tag: "TunnelGone", status: failed, reason },
  Headers: { _tag: "Headers", headers: Buffer.alloc(0) },
  Reply: { _tag: "Reply", message: request },
  "Status(OK)": { _tag: "Status", status: ok },
  "Status(error)": { _tag: "Status", status: failed },
  Flushed: { _tag: "Flushed" },
  Finalize: { _tag: "Finalize" }
}

const nameOf = (state: State): string => {
  switch (state._tag) {
    case "Gathering":
      return `Gathering(${state.request === undefined ? "" : "r"})`
    case "Running":
      return `Running(${state.headersSent ? "h" : ""}${state.requestEnded ? "e" : ""})`
    case "Ended":
      return `Ended(${state.by} ${state.status.code}${state.started ? "" : ", unstarted"})`
    case "Closed":
      return `Closed(${state.by})`
    default:
      return state._tag
  }
}

const actionOf = (action: Action): string => {
  switch (action._tag) {
    case "Abort":
      return `Abort(${action.status === undefined ? "silently" : action.status.code})`
    case "Late":
      return `Late(${action.what})`
    case "Finish":
      return `Finish(${action.reason === undefined ? "" : "cancel"})`
    case "SendStatus":
      return `SendStatus(${action.status.code})`
    default:
      return action._tag
  }
}

const table = lines(`
  Gathering() + Request -> Gathering(r)
  Gathering() + HalfClose -> Ended(fault 3, unstarted): Finish(cancel)
  Gathering() + HalfClose(cut) -> Ended(fault 3, unstarted): Finish(cancel)
  Gathering() + Cancel -> Ended(peer 1, unstarted): Finish(cancel)
  Gathering() + Deadline -> Ended(deadline 4, unstarted): Finish(cancel)
  Gathering() + Fault -> Ended(fault 10, unstarted): Finish(cancel)
  Gathering() + TunnelGone -> Ended(tunnel 10, unstarted): Finish(cancel)
  Gathering() + Headers -> =
  Gathering() + Reply -> =
  Gathering() + Status(OK) -> =
  Gathering() + Status(error) -> =
  Gathering() + Flushed -> =
  Gathering() + Finalize -> Closed(tunnel): Abort(14)
  Gathering(r) + Request -> Ended(fault 3, unstarted): Finish(cancel)
  Gathering(r) + HalfClose -> Running(e): StartHandler
  Gathering(r) + HalfClose(cut) -> Ended(fault 3, unstarted): Finish(cancel)
  Gathering(r) + Cancel -> Ended(peer 1, unstarted): Finish(cancel)
  Gathering(r) + Deadline -> Ended(deadline 4, unstarted): Finish(cancel)
  Gathering(r) + Fault -> Ended(fault 10, unstarted): Finish(cancel)
  Gathering(r) + TunnelGone -> Ended(tunnel 10, unstarted): Finish(cancel)
  Gathering(r) + Headers -> =
  Gathering(r) + Reply -> =
  Gathering(r) + Status(OK) -> =
  Gathering(r) + Status(error) -> =
  Gathering(r) + Flushed -> =
  Gathering(r) + Finalize -> Closed(tunnel): Abort(14)
  Running() + Request -> =: PushRequest
  Running() + HalfClose -> Running(e): PushEnd
  Running() + HalfClose(cut) -> Ended(fault 3): Finish(cancel)
  Running() + Cancel -> Ended(peer 1): Finish(cancel)
  Running() + Deadline -> Ended(deadline 4): Finish(cancel)
  Running() + Fault -> Ended(fault 10): Finish(cancel)
  Running() + TunnelGone -> Ended(tunnel 10): Finish(cancel)
  Running() + Headers -> Running(h): SendHeaders
  Running() + Reply -> Running(h): SendHeaders, SendMessage
  Running() + Status(OK) -> Finishing: SendHeaders, SendStatus(0)
  Running() + Status(error) -> Finishing: SendStatus(10)
  Running() + Flushed -> =
  Running() + Finalize -> Closed(tunnel): Abort(14), TellHandler
  Running(h) + Request -> =: PushRequest
  Running(h) + HalfClose -> Running(he): PushEnd
  Running(h) + HalfClose(cut) -> Ended(fault 3): Finish(cancel)
  Running(h) + Cancel -> Ended(peer 1): Finish(cancel)
  Running(h) + Deadline -> Ended(deadline 4): Finish(cancel)
  Running(h) + Fault -> Ended(fault 10): Finish(cancel)
  Running(h) + TunnelGone -> Ended(tunnel 10): Finish(cancel)
  Running(h) + Headers -> =
  Running(h) + Reply -> =: SendMessage
  Running(h) + Status(OK) -> Finishing: SendStatus(0)
  Running(h) + Status(error) -> Finishing: SendStatus(10)
  Running(h) + Flushed -> =
  Running(h) + Finalize -> Closed(tunnel): Abort(14), TellHandler
  Running(e) + Request -> =: PushRequest
  Running(e) + HalfClose -> =
  Running(e) + HalfClose(cut) -> =
  Running(e) + Cancel -> Ended(peer 1): Finish(cancel)
  Running(e) + Deadline -> Ended(deadline 4): Finish(cancel)
  Running(e) + Fault -> Ended(fault 10): Finish(cancel)
  Running(e) + TunnelGone -> Ended(tunnel 10): Finish(cancel)
  Running(e) + Headers -> Running(he): SendHeaders
  Running(e) + Reply -> Running(he): SendHeaders, SendMessage
  Running(e) + Status(OK) -> Finishing: SendHeaders, SendStatus(0)
  Running(e) + Status(error) -> Finishing: SendStatus(10)
  Running(e) + Flushed -> =
  Running(e) + Finalize -> Closed(tunnel): Abort(14), TellHandler
  Running(he) + Request -> =: PushRequest
  Running(he) + HalfClose -> =
  Running(he) + HalfClose(cut) -> =
  Running(he) + Cancel -> Ended(peer 1): Finish(cancel)
  Running(he) + Deadline -> Ended(deadline 4): Finish(cancel)
  Running(he) + Fault -> Ended(fault 10): Finish(cancel)
  Running(he) + TunnelGone -> Ended(tunnel 10): Finish(cancel)
  Running(he) + Headers -> =
  Running(he) + Reply -> =: SendMessage
  Running(he) + Status(OK) -> Finishing: SendStatus(0)
  Running(he) + Status(error) -> Finishing: SendStatus(10)
  Running(he) + Flushed -> =
  Running(he) + Finalize -> Closed(tunnel): Abort(14), TellHandler
  Finishing + Request -> =
  Finishing + HalfClose -> =
  Finishing + HalfClose(cut) -> =
  Finishing + Cancel -> Ended(peer 1): Finish(cancel)
  Finishing + Deadline -> Ended(deadline 4): Finish(cancel)
  Finishing + Fault -> Ended(fault 10): Finish(cancel)
  Finishing + TunnelGone -> Ended(tunnel 10): Finish(cancel)
  Finishing + Headers -> =
  Finishing + Reply -> =
  Finishing + Status(OK) -> =
  Finishing + Status(error) -> =
  Finishing + Flushed -> Ended(handler 0): Finish()
  Finishing + Finalize -> Closed(tunnel): Abort(14), TellHandler
  Ended(handler) + Request -> =
  Ended(handler) + HalfClose -> =
  Ended(handler) + HalfClose(cut) -> =
  Ended(handler) + Cancel -> =
  Ended(handler) + Deadline -> =
  Ended(handler) + Fault -> =
  Ended(handler) + TunnelGone -> =
  Ended(handler) + Headers -> =
  Ended(handler) + Reply -> =
  Ended(handler) + Status(OK) -> =
  Ended(handler) + Status(error) -> =
  Ended(handler) + Flushed -> =
  Ended(handler) + Finalize -> Closed(handler)
  Ended(peer) + Request -> =
  Ended(peer) + HalfClose -> =
  Ended(peer) + HalfClose(cut) -> =
  Ended(peer) + Cancel -> =
  Ended(peer) + Deadline -> =
  Ended(peer) + Fault -> =
  Ended(peer) + TunnelGone -> =
  Ended(peer) + Headers -> =: Late(headers)
  Ended(peer) + Reply -> =: Late(message)
  Ended(peer) + Status(OK) -> =: Late(status)
  Ended(peer) + Status(error) -> =: Late(status)
  Ended(peer) + Flushed -> =
  Ended(peer) + Finalize -> Closed(peer): Abort(silently), TellHandler
  Ended(deadline) + Request -> =
  Ended(deadline) + HalfClose -> =
  Ended(deadline) + HalfClose(cut) -> =
  Ended(deadline) + Cancel -> =
  Ended(deadline) + Deadline -> =
  Ended(deadline) + Fault -> =
  Ended(deadline) + TunnelGone -> =
  Ended(deadline) + Headers -> =: Late(headers)
  Ended(deadline) + Reply -> =: Late(message)
  Ended(deadline) + Status(OK) -> =: Late(status)
  Ended(deadline) + Status(error) -> =: Late(status)
  Ended(deadline) + Flushed -> =
  Ended(deadline) + Finalize -> Closed(deadline): Abort(10), TellHandler
  Ended(fault, unstarted) + Request -> =
  Ended(fault, unstarted) + HalfClose -> =
  Ended(fault, unstarted) + HalfClose(cut) -> =
  Ended(fault, unstarted) + Cancel -> =
  Ended(fault, unstarted) + Deadline -> =
  Ended(fault, unstarted) + Fault -> =
  Ended(fault, unstarted) + TunnelGone -> =
  Ended(fault, unstarted) + Headers -> =: Late(headers)
  Ended(fault, unstarted) + Reply -> =: Late(message)
  Ended(fault, unstarted) + Status(OK) -> =: Late(status)
  Ended(fault, unstarted) + Status(error) -> =: Late(status)
  Ended(fault, unstarted) + Flushed -> =
  Ended(fault, unstarted) + Finalize -> Closed(fault): Abort(10)
  Ended(tunnel) + Request -> =
  Ended(tunnel) + HalfClose -> =
  Ended(tunnel) + HalfClose(cut) -> =
  Ended(tunnel) + Cancel -> =
  Ended(tunnel) + Deadline -> =
  Ended(tunnel) + Fault -> =
  Ended(tunnel) + TunnelGone -> =
  Ended(tunnel) + Headers -> =: Late(headers)
  Ended(tunnel) + Reply -> =: Late(message)
  Ended(tunnel) + Status(OK) -> =: Late(status)
  Ended(tunnel) + Status(error) -> =: Late(status)
  Ended(tunnel) + Flushed -> =
  Ended(tunnel) + Finalize -> Closed(tunnel): Abort(10), TellHandler
  Closed(handler) + Request -> =
  Closed(handler) + HalfClose -> =
  Closed(handler) + HalfClose(cut) -> =
  Closed(handler) + Cancel -> =
  Closed(handler) + Deadline -> =
  Closed(handler) + Fault -> =
  Closed(handler) + TunnelGone -> =
  Closed(handler) + Headers -> =
  Closed(handler) + Reply -> =
  Closed(handler) + Status(OK) -> =
  Closed(handler) + Status(error) -> =
  Closed(handler) + Flushed -> =
  Closed(handler) + Finalize -> =
  Closed(peer) + Request -> =
  Closed(peer) + HalfClose -> =
  Closed(peer) + HalfClose(cut) -> =
  Closed(peer) + Cancel -> =
  Closed(peer) + Deadline -> =
  Closed(peer) + Fault -> =
  Closed(peer) + TunnelGone -> =
  Closed(peer) + Headers -> =: Late(headers)
  Closed(peer) + Reply -> =: Late(message)
  Closed(peer) + Status(OK) -> =: Late(status)
  Closed(peer) + Status(error) -> =: Late(status)
  Closed(peer) + Flushed -> =
  Closed(peer) + Finalize -> =
`)

describe("the machine of a stream at the tunnel server", () => {
  it("does exactly this, for every state and every event", () => {
    expect(tabulate(states, events, step, nameOf, actionOf)).toEqual(table)
  })

  it("starts its handler at once only for a method with a request stream", () => {
    expect(initial(true)[1].map(actionOf)).toEqual(["StartHandler"])
    expect(initial(false)[1]).toEqual([])
  })

  it("takes request data exactly while a request can still grow", () => {
    const taking = Object.keys(states).filter((name) => takesData(states[name] as State))
    expect(taking).toEqual(["Gathering()", "Gathering(r)", "Running()", "Running(h)"])
  })

  it("finishes once, tells the handler at most once, and starts it at most once, whatever happens", () => {
    const any = fc.array(fc.constantFrom(...Object.values(events)), { maxLength: 30 })
    fc.assert(
      fc.property(fc.boolean(), any, (requestStream, happened) => {
        let [state, first] = initial(requestStream)
        const seen = [...first]
        for (const event of [...happened, { _tag: "Finalize" } as const]) {
          const [next, actions] = step(state, event)
          seen.push(...actions)
          state = next
        }
        const count = (tag: Action["_tag"]): number => seen.filter((action) => action._tag === tag).length
        expect(state._tag).toBe("Closed")
        expect(count("StartHandler")).toBeLessThanOrEqual(1)
        expect(count("TellHandler")).toBeLessThanOrEqual(count("StartHandler"))
        expect(count("Finish")).toBeLessThanOrEqual(1)
        expect(count("SendStatus") + count("Abort")).toBeLessThanOrEqual(2)
      })
    )
  })
})
