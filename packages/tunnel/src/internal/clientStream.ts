/**
 * The life of one stream at the tunnel client, as a pure machine: `(state, event) -> [state, actions]`.
 *
 * `Idle` is not on the wire yet; `Open` is; `Draining` has the server's status and messages the caller has not
 * read; `Ended` knows the outcome and waits for its owner's finalizers; `Closed` is final.
 *
 * **Invariants**
 * 1. Total: every event has a meaning in every state, and none of them throws.
 * 2. Rule `early-answer`: the status is delivered exactly once, by `Finalize`, and after every message the server's
 *    close left behind.
 * 3. Rule `cancel-once`: `cancel` goes out at most once, and exactly when the stream is on the wire and the server has
 *    not closed it: a fault that only this end sees is announced too, or the server's handler would wait for ever.
 * 4. `Finish` is asked for exactly once, on entering `Ended`.
 * 5. A send after the end is `Late`: it fails softly, and the status tells the caller why.
 */
import type { CancelReason } from "@curfew/reason"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"

type EndedBy = "peer" | "caller" | "deadline" | "fault" | "tunnel"
export type LateWrite = "message" | "halfClose"

export type State =
  | { readonly _tag: "Idle"; readonly halfClosed: boolean }
  | { readonly _tag: "Open"; readonly headersSeen: boolean; readonly halfClosed: boolean }
  | { readonly _tag: "Draining"; readonly status: RpcStatus }
  | {
      readonly _tag: "Ended"
      readonly by: EndedBy
      readonly status: RpcStatus
      readonly reason: CancelReason | undefined
      /** The server still believes the stream is open. */
      readonly serverOpen: boolean
    }
  | { readonly _tag: "Closed" }

export type Event =
  | { readonly _tag: "Start" }
  | { readonly _tag: "Send"; readonly message: Buffer }
  | { readonly _tag: "HalfClose" }
  | { readonly _tag: "Cancel"; readonly status: RpcStatus; readonly reason: CancelReason }
  | { readonly _tag: "Deadline"; readonly reason: CancelReason }
  | { readonly _tag: "Fault"; readonly status: RpcStatus; readonly reason: CancelReason }
  | { readonly _tag: "TunnelGone"; readonly status: RpcStatus; readonly reason: CancelReason }
  | { readonly _tag: "Headers"; readonly metadata: Metadata }
  /** The server's close: `unread` messages wait for the caller, or the last one is `truncated`. */
  | {
      readonly _tag: "Close"
      readonly status: RpcStatus
      readonly unread: boolean
      readonly truncated: boolean
    }
  /** The caller has read the last message. */
  | { readonly _tag: "Drained" }
  | { readonly _tag: "Finalize" }

export type Action =
  | { readonly _tag: "SendNewStream" }
  | { readonly _tag: "QueueMessage"; readonly message: Buffer }
  | { readonly _tag: "QueueHalfClose" }
  | { readonly _tag: "DeliverHeaders"; readonly metadata: Metadata }
  /** Drop what is queued, and announce it when `cancel`. */
  | { readonly _tag: "Abort"; readonly cancel: boolean; readonly reason: CancelReason | undefined }
  | { readonly _tag: "DeliverStatus"; readonly status: RpcStatus }
  | { readonly _tag: "Late"; readonly what: LateWrite }
  | { readonly _tag: "Finish"; readonly reason: CancelReason | undefined }

export type Transition = readonly [State, ReadonlyArray<Action>]

export const initial: State = { _tag: "Idle", halfClosed: false }

const none: ReadonlyArray<Action> = []

// What every call goes through is made once: states and actions without contents are shared by all streams.
const idleClosed: State = { _tag: "Idle", halfClosed: true }
const closed: State = { _tag: "Closed" }
const opened = (headersSeen: boolean, halfClosed: boolean): State => ({
  _tag: "Open",
  headersSeen,
  halfClosed
})
const openStates: ReadonlyArray<State> = [
  opened(false, false),
  opened(false, true),
  opened(true, false),
  opened(true, true)
]
const openState = (headersSeen: boolean, halfClosed: boolean): State =>
  openStates[(headersSeen ? 2 : 0) + (halfClosed ? 1 : 0)] as State
const sendNewStream: ReadonlyArray<Action> = [{ _tag: "SendNewStream" }]
const queueHalfClose: ReadonlyArray<Action> = [{ _tag: "QueueHalfClose" }]
const finished: ReadonlyArray<Action> = [{ _tag: "Finish", reason: undefined }]

const ended = (
  by: EndedBy,
  status: RpcStatus,
  reason: CancelReason | undefined,
  serverOpen: boolean
): Transition => [
  { _tag: "Ended", by, status, reason, serverOpen },
  reason === undefined ? finished : [{ _tag: "Finish", reason }]
]

/** The events that end a stream from this side, wherever it stands. */
const interrupted = (state: State, event: Event, serverOpen: boolean): Transition => {
  switch (event._tag) {
    case "Cancel":
      return ended("caller", event.status, event.reason, serverOpen)
    case "Deadline":
      return ended(
        "deadline",
        makeStatus(Code.DEADLINE_EXCEEDED, "Deadline exceeded"),
        event.reason,
        serverOpen
      )
    case "Fault":
      return ended("fault", event.status, event.reason, serverOpen)
    case "TunnelGone":
      return ended("tunnel", event.status, event.reason, serverOpen)
    default:
      return [state, none]
  }
}

const idle = (state: Extract<State, { _tag: "Idle" }>, event: Event): Transition => {
  switch (event._tag) {
    case "Start":
      return [openState(false, state.halfClosed), sendNewStream]
    case "Send":
      return [state, state.halfClosed ? none : [{ _tag: "QueueMessage", message: event.message }]]
    case "HalfClose":
      return state.halfClosed ? [state, none] : [idleClosed, queueHalfClose]
    default:
      return interrupted(state, event, false)
  }
}

const open = (state: Extract<State, { _tag: "Open" }>, event: Event): Transition => {
  switch (event._tag) {
    case "Send":
      return [state, state.halfClosed ? none : [{ _tag: "QueueMessage", message: event.message }]]
    case "HalfClose":
      return state.halfClosed ? [state, none] : [openState(state.headersSeen, true), queueHalfClose]
    case "Headers":
      return state.headersSeen
        ? [state, none]
        : [openState(true, state.halfClosed), [{ _tag: "DeliverHeaders", metadata: event.metadata }]]
    case "Close":
      // Rule `no-partial-end`.
      if (event.truncated && event.status.code === Code.OK) {
        const detail = "The server closed the stream inside a message"
        return ended(
          "fault",
          makeStatus(Code.INTERNAL, detail),
          { _tag: "Requested", message: detail },
          false
        )
      }
      if (event.unread) return [{ _tag: "Draining", status: event.status }, none]
      return ended("peer", event.status, undefined, false)
    default:
      return interrupted(state, event, true)
  }
}

const draining = (state: Extract<State, { _tag: "Draining" }>, event: Event): Transition => {
  switch (event._tag) {
    case "Drained":
      return ended("peer", state.status, undefined, false)
    case "Send":
      return [state, [{ _tag: "Late", what: "message" }]]
    case "HalfClose":
      return [state, [{ _tag: "Late", what: "halfClose" }]]
    default:
      return interrupted(state, event, false)
  }
}

const over = (state: State, event: Event): Transition => {
  if (event._tag === "Send") return [state, [{ _tag: "Late", what: "message" }]]
  if (event._tag === "HalfClose") return [state, [{ _tag: "Late", what: "halfClose" }]]
  return [state, none]
}

/** What an event does to a stream. */
export const step = (state: State, event: Event): Transition => {
  if (state._tag === "Closed") return over(state, event)
  if (state._tag === "Ended") {
    if (event._tag !== "Finalize") return over(state, event)
    return [
      closed,
      [
        { _tag: "Abort", cancel: state.serverOpen, reason: state.reason },
        { _tag: "DeliverStatus", status: state.status }
      ]
    ]
  }
  if (event._tag === "Finalize") {
    // Its owner ends before anybody said why: the caller still gets a status, the server its cancel.
    const status = makeStatus(Code.UNAVAILABLE, "The tunnel ended")
    return step(ended("tunnel", status, { _tag: "Unknown" }, state._tag === "Open")[0], event)
  }
  switch (state._tag) {
    case "Idle":
      return idle(state, event)
    case "Open":
      return open(state, event)
    case "Draining":
      return draining(state, event)
  }
}

/** Whether response data is still of interest. */
export const takesData = (state: State): boolean => state._tag === "Open"
