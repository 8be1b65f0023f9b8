/**
 * The life of one stream at the tunnel server, as a pure machine: `(state, event) -> [state, actions]`.
 *
 * `Gathering` waits for the one request of a method without request stream; `Running` has a handler; `Finishing`
 * has its answer on the way to the wire; `Ended` knows the outcome and waits for its owner's finalizers; `Closed`
 * is final.
 *
 * **Invariants**
 * 1. Total: every event has a meaning in every state, and none of them throws.
 * 2. The handler starts at most once, and is told of a cancel at most once and only when its answer had not left.
 * 3. `Finish` is asked for exactly once, on entering `Ended`; after that nothing but `Finalize` acts.
 * 4. Rule `no-answer-to-cancel`: a cancelled stream answers the peer only if the peer still listens: not after the
 *    peer's own cancel.
 * 5. Rule `close-is-last`: what a handler writes after the end is `Late`: a value for the observer, never a frame.
 */
import type { CancelReason } from "@curfew/reason"
import { status as Code } from "@grpc/grpc-js"
import { noBytes } from "./frame.ts"
import type { MetadataProblem } from "./metadata.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"

type EndedBy = "handler" | "peer" | "deadline" | "fault" | "tunnel"
export type LateWrite = "headers" | "message" | "status"

export type State =
  | { readonly _tag: "Gathering"; readonly request: Buffer | undefined }
  | { readonly _tag: "Running"; readonly headersSent: boolean; readonly requestEnded: boolean }
  | { readonly _tag: "Finishing"; readonly status: RpcStatus }
  | {
      readonly _tag: "Ended"
      readonly by: EndedBy
      readonly status: RpcStatus
      readonly reason: CancelReason | undefined
      readonly started: boolean
    }
  | { readonly _tag: "Closed"; readonly by: EndedBy }

export type Event =
  /** A whole request message was taken from the wire. */
  | { readonly _tag: "Request"; readonly message: Buffer }
  | { readonly _tag: "HalfClose"; readonly truncated: boolean }
  | { readonly _tag: "Cancel"; readonly reason: CancelReason }
  | { readonly _tag: "Deadline"; readonly reason: CancelReason }
  | { readonly _tag: "Fault"; readonly status: RpcStatus; readonly reason: CancelReason }
  | { readonly _tag: "TunnelGone"; readonly status: RpcStatus; readonly reason: CancelReason }
  /** The handler's headers, encoded when it gave them: it may change its metadata afterwards. */
  | { readonly _tag: "Headers"; readonly headers: Buffer | MetadataProblem }
  | { readonly _tag: "Reply"; readonly message: Buffer }
  | { readonly _tag: "Status"; readonly status: RpcStatus }
  /** The answer's last frame left with a batch. */
  | { readonly _tag: "Flushed" }
  | { readonly _tag: "Finalize" }

export type Action =
  | { readonly _tag: "StartHandler"; readonly request: Buffer | undefined }
  | { readonly _tag: "PushRequest"; readonly message: Buffer }
  | { readonly _tag: "PushEnd" }
  | { readonly _tag: "SendHeaders"; readonly headers: Buffer | MetadataProblem }
  | { readonly _tag: "SendMessage"; readonly message: Buffer }
  /** Queue the close behind what is queued, and report `Flushed` when it left. */
  | { readonly _tag: "SendStatus"; readonly status: RpcStatus }
  /** Drop what is queued; with a status, close the stream at once. */
  | { readonly _tag: "Abort"; readonly status: RpcStatus | undefined }
  | { readonly _tag: "TellHandler"; readonly reason: CancelReason }
  | { readonly _tag: "Late"; readonly what: LateWrite }
  | { readonly _tag: "Finish"; readonly reason: CancelReason | undefined }

export type Transition = readonly [State, ReadonlyArray<Action>]

const none: ReadonlyArray<Action> = []

// What every call goes through is made once: states and actions without contents are shared by all streams.
const ran = (headersSent: boolean, requestEnded: boolean): State => ({
  _tag: "Running",
  headersSent,
  requestEnded
})
const runningStates: ReadonlyArray<State> = [
  ran(false, false),
  ran(false, true),
  ran(true, false),
  ran(true, true)
]
const runningState = (headersSent: boolean, requestEnded: boolean): State =>
  runningStates[(headersSent ? 2 : 0) + (requestEnded ? 1 : 0)] as State
const noHeaders: Action = { _tag: "SendHeaders", headers: noBytes }
const pushEnd: ReadonlyArray<Action> = [{ _tag: "PushEnd" }]
const finished: ReadonlyArray<Action> = [{ _tag: "Finish", reason: undefined }]
const streaming: Transition = [runningState(false, false), [{ _tag: "StartHandler", request: undefined }]]
const gatheringFirst: Transition = [{ _tag: "Gathering", request: undefined }, none]

/** The first state: a method with a request stream starts its handler at once. */
export const initial = (requestStream: boolean): Transition => (requestStream ? streaming : gatheringFirst)

const ended = (
  by: EndedBy,
  status: RpcStatus,
  reason: CancelReason | undefined,
  started: boolean
): Transition => [
  { _tag: "Ended", by, status, reason, started },
  reason === undefined ? finished : [{ _tag: "Finish", reason }]
]

const malformedRequest = (detail: string, started: boolean): Transition =>
  ended("fault", makeStatus(Code.INVALID_ARGUMENT, detail), { _tag: "Requested", message: detail }, started)

/** The events that end a stream from outside its handler, wherever it stands. */
const interrupted = (state: State, event: Event, started: boolean): Transition => {
  switch (event._tag) {
    case "Cancel":
      return ended("peer", makeStatus(Code.CANCELLED, "The caller cancelled"), event.reason, started)
    case "Deadline":
      return ended("deadline", makeStatus(Code.DEADLINE_EXCEEDED, "Deadline exceeded"), event.reason, started)
    case "Fault":
      return ended("fault", event.status, event.reason, started)
    case "TunnelGone":
      return ended("tunnel", event.status, event.reason, started)
    default:
      return [state, none]
  }
}

const gathering = (state: Extract<State, { _tag: "Gathering" }>, event: Event): Transition => {
  switch (event._tag) {
    case "Request":
      return state.request === undefined
        ? [{ _tag: "Gathering", request: event.message }, none]
        : malformedRequest("The method takes one request and got a second", false)
    case "HalfClose":
      // Rules `no-partial-end` and `one-request`.
      if (event.truncated) return malformedRequest("The request is cut off", false)
      if (state.request === undefined)
        return malformedRequest("The method takes one request and got none", false)
      return [runningState(false, true), [{ _tag: "StartHandler", request: state.request }]]
    default:
      return interrupted(state, event, false)
  }
}

const running = (state: Extract<State, { _tag: "Running" }>, event: Event): Transition => {
  switch (event._tag) {
    case "Request":
      return [state, [{ _tag: "PushRequest", message: event.message }]]
    case "HalfClose":
      if (state.requestEnded) return [state, none]
      if (event.truncated) return malformedRequest("The request stream ends inside a message", true)
      return [runningState(state.headersSent, true), pushEnd]
    case "Headers":
      // Rule `headers-first`: once, before the first message, and before a close that is OK.
      return state.headersSent
        ? [state, none]
        : [runningState(true, state.requestEnded), [{ _tag: "SendHeaders", headers: event.headers }]]
    case "Reply": {
      const send: Action = { _tag: "SendMessage", message: event.message }
      return state.headersSent ? [state, [send]] : [runningState(true, state.requestEnded), [noHeaders, send]]
    }
    case "Status": {
      const close: Action = { _tag: "SendStatus", status: event.status }
      const bare = state.headersSent || event.status.code !== Code.OK
      return [{ _tag: "Finishing", status: event.status }, bare ? [close] : [noHeaders, close]]
    }
    default:
      return interrupted(state, event, true)
  }
}

const lateWrite = (state: State, event: Event): Transition => {
  switch (event._tag) {
    case "Headers":
      return [state, [{ _tag: "Late", what: "headers" }]]
    case "Reply":
      return [state, [{ _tag: "Late", what: "message" }]]
    case "Status":
      return [state, [{ _tag: "Late", what: "status" }]]
    default:
      return [state, none]
  }
}

const answered: Transition = [{ _tag: "Closed", by: "handler" }, none]

const finalized = (by: EndedBy, actions: ReadonlyArray<Action>): Transition =>
  by === "handler" ? answered : [{ _tag: "Closed", by }, actions]

const endedState = (state: Extract<State, { _tag: "Ended" }>, event: Event): Transition => {
  if (event._tag !== "Finalize") return state.by === "handler" ? [state, none] : lateWrite(state, event)
  if (state.by === "handler") return finalized("handler", none)
  const abort: Action = { _tag: "Abort", status: state.by === "peer" ? undefined : state.status }
  return finalized(
    state.by,
    state.started ? [abort, { _tag: "TellHandler", reason: state.reason ?? { _tag: "Unknown" } }] : [abort]
  )
}

/** What an event does to a stream. */
export const step = (state: State, event: Event): Transition => {
  if (state._tag === "Closed") return state.by === "handler" ? [state, none] : lateWrite(state, event)
  if (state._tag === "Ended") return endedState(state, event)
  if (event._tag === "Finalize") {
    // Its owner ends before anybody said why: nothing may be left open, so this counts as the tunnel's end.
    const [next] = ended(
      "tunnel",
      makeStatus(Code.UNAVAILABLE, "The tunnel ended"),
      { _tag: "Unknown" },
      state._tag !== "Gathering"
    )
    return step(next, event)
  }
  switch (state._tag) {
    case "Gathering":
      return gathering(state, event)
    case "Running":
      return running(state, event)
    case "Finishing":
      return event._tag === "Flushed"
        ? ended("handler", state.status, undefined, true)
        : interrupted(state, event, true)
  }
}

/** Whether request data is still of interest; what comes later is not even counted against the window. */
export const takesData = (state: State): boolean =>
  state._tag === "Gathering" || (state._tag === "Running" && !state.requestEnded)
