/**
 * Where one of our ends says or reports something else than the recorded end of the Go implementation did, and why.
 * Every entry has to differ from the recording, or it is no difference.
 */
import { status as Code } from "@grpc/grpc-js"
import type { ClientPlan, ServerPlan } from "./replay.ts"

export interface ServerDifference extends ServerPlan {
  /** The rule under which the tunnel ends. */
  readonly violates?: string
  /** The recorded tunnel ended, ours lives on. */
  readonly survives?: true
  readonly why: string
}

export interface ClientDifference extends ClientPlan {
  readonly violates?: string
  /** The code with which opening the tunnel fails. */
  readonly refused?: number
  /** The codes that the callers get, by stream. */
  readonly codes?: Readonly<Record<number, number>>
  readonly why: string
}

const opened = "open /grpchantesting.TestService/Unary 1 65536 {}"
const hi = "message 6869 0 0 0 {} {} 0"

const bare =
  "a stream that is aborted before its headers is closed without any: they would be empty, and every client takes a close alone"
const silent =
  "nothing is said to a caller that has cancelled, neither headers nor a close nor, later, the handler's answer after the close"
const internal = "a broken rule ends the outer call with INTERNAL and a sentence; UNKNOWN says less"
const lost =
  "a call that its tunnel takes along ends with UNAVAILABLE, so that its caller knows that trying again may help; CANCELLED is the caller's own doing"
const told =
  "the tunnel server is told of every fault that only the client sees, so that its handler does not wait for ever"
const failsToOpen =
  "a tunnel whose negotiation failed does not open, with a status; the Go library gives a channel, and the first call on it fails without one"

export const serverDifferences: Readonly<Record<string, ServerDifference>> = {
  "G08-deadline": { said: { 1: [] }, late: true, why: silent },
  "R03-reverse-graceful-stop-idle": {
    shutdownBefore: 1,
    said: { 2: ["close 14 {}"] },
    why: "a refused stream's id counts as seen, so that its own data cannot end the tunnel, and the next call is refused too"
  },
  "S06-stream-id-decreasing": {
    said: { 5: ["close 14 {}"] },
    violates: "ids-increase",
    why: `${internal}; ${lost}`
  },
  "S07-stream-id-duplicate-active": {
    said: { 1: ["close 14 {}"] },
    violates: "ids-increase",
    why: `${internal}; ${lost}`
  },
  "S08-stream-id-reuse-finished": { violates: "ids-increase", why: internal },
  "S09-stream-id-negative": { violates: "ids-increase", why: internal },
  "S10-frame-for-never-created-id": { violates: "stream-unknown", why: internal },
  "S16-unset-frame-active": {
    said: { 1: ["close 13 {}"] },
    why: `a frame of an unknown kind is INTERNAL rather than UNKNOWN; ${bare}`
  },
  "S17-half-close-without-message-unary": {
    said: { 1: ["close 3 {}"] },
    why: `a request that never came is the caller's mistake, INVALID_ARGUMENT rather than UNKNOWN; ${bare}`
  },
  "S19-half-close-mid-message-client-stream": {
    said: { 1: ["close 3 {}"] },
    why: "an end in the middle of a message is an error, and never a clean end that loses the message"
  },
  "S21-more-data-without-envelope": { said: { 1: ["close 3 {}"] }, why: bare },
  "S23-data-longer-than-size": { said: { 1: ["close 3 {}"], 2: ["close 3 {}"] }, why: bare },
  "S24-undecodable-message": {
    said: { 1: ["close 13 {}"] },
    why: `a request that cannot be decoded is INTERNAL, as in grpc-js without a tunnel; ${bare}`
  },
  "S25-window-exact-64k-one-frame": {
    said: { 1: ["headers {}", "message 65529 bytes of 1 1 0 0 {} {} 0"] },
    why: "a handler never gets a message that nobody sent; the Go library gives it an empty one when its tunnel ends, and it answers that"
  },
  "S26-window-exceeded": { said: { 1: ["close 8 {}"] }, why: bare },
  "S29-cancel-bidi": { said: { 1: ["headers {}", "message 6869 1 0 0 {} {} 0"] }, why: silent },
  "S30-cancel-running-unary": { said: { 1: [] }, late: true, why: silent },
  "S31-grpc-timeout-unary": {
    said: { 1: ["close 4 {}"] },
    why: "a deadline that passes is DEADLINE_EXCEEDED; the phantom message makes it INVALID_ARGUMENT in the Go library"
  },
  "S32-grpc-timeout-bidi": {
    said: { 1: ["close 4 {}"] },
    why: "no phantom message is answered, and a deadline that passes is DEADLINE_EXCEEDED"
  },
  "S34-grpc-timeout-forms": {
    said: {
      5: ["headers {}", "close 4 {}"],
      7: ["headers {}", "close 4 {}"],
      8: ["headers {}", "close 4 {}"]
    },
    why: "a deadline that has passed is DEADLINE_EXCEEDED rather than UNKNOWN, on the same values"
  },
  "S37-initiate-shutdown-new-stream-with-data": {
    shutdownBefore: 2,
    said: { 1: ["headers {}", "message 6869 1 0 0 {} {} 0"] },
    survives: true,
    why: "a shutdown lets the call in flight go on: the refused stream's own data is ignored and does not end the tunnel"
  },
  "S45-outer-half-close-with-inflight": {
    said: { 1: [], 2: [] },
    why: "a handler never gets a message that nobody sent, and nothing is said to a peer that has left"
  },
  "S47-response-headers-invalid-utf8-trailer": {
    said: { 1: ["headers {}", "message  0 0 0 {} {} 0", "close 13 {}"] },
    survives: true,
    why: "metadata that cannot be carried fails its own call with INTERNAL, and not the tunnel"
  },
  "S48-response-headers-invalid-utf8-header": {
    survives: true,
    why: "metadata that cannot be carried fails its own call with INTERNAL, and not the tunnel"
  },
  "S49-uppercase-and-reserved-request-metadata": {
    said: { 1: ["close 3 {}"] },
    why: "keys that no header may have (an empty one, a pseudo-header) are refused with their call: a grpc-js handler could not read them"
  }
}

/** How our server has to be set up to stand where the recorded one stood, where it says the same. */
export const serverPlans: Readonly<Record<string, ServerPlan>> = {
  "S38-initiate-shutdown-new-stream-only": { shutdownBefore: 2 },
  "S44-disabled-flow-control-settings": { flowControl: false }
}

export const clientDifferences: Readonly<Record<string, ClientDifference>> = {
  "C03-settings-never-sent": {
    openTimeout: "20 millis",
    refused: Code.DEADLINE_EXCEEDED,
    said: { 1: [] },
    why: "waiting for the settings has a limit; the Go library waits until its context ends"
  },
  "C04-first-frame-not-settings": { refused: Code.INTERNAL, why: failsToOpen },
  "C05-settings-id-0": { refused: Code.INTERNAL, why: failsToOpen },
  "C07-settings-unknown-revision-only": { refused: Code.FAILED_PRECONDITION, why: failsToOpen },
  "C12-client-no-flow-control-server-only-1": {
    revisionZero: true,
    refused: Code.FAILED_PRECONDITION,
    why: failsToOpen
  },
  "C18-two-messages-unary": {
    said: { 1: [opened, hi, "half-close", "cancel"] },
    why: told
  },
  "C19-ok-without-message-unary": {
    codes: { 1: Code.UNIMPLEMENTED },
    why: "OK without an answer has a status, the one that grpc-js gives without a tunnel; the Go library gives a bare end of stream"
  },
  "C22-partial-message-then-ok": {
    codes: { 1: Code.INTERNAL },
    why: "an end in the middle of a message is an error with a status"
  },
  "C26-undecodable-response": {
    said: { 1: [opened, hi, "half-close", "cancel"] },
    codes: { 1: Code.INTERNAL },
    why: "an answer that cannot be decoded has a status, the one that grpc-js gives without a tunnel"
  },
  "C27-window-exceeded-by-server": { said: { 1: [opened, hi, "half-close", "cancel"] }, why: told },
  "C28-unset-frame": {
    said: { 1: [opened, hi, "half-close", "cancel"] },
    codes: { 1: Code.INTERNAL },
    why: `${told}; and the caller gets a status`
  },
  "C31-second-settings-before-any-stream": {
    why: "settings that come again change nothing, whether or not a stream was opened before"
  },
  "C32-frame-for-unknown-stream": {
    said: { 1: [opened, hi, "half-close", "cancel"] },
    codes: { 1: Code.UNAVAILABLE },
    violates: "stream-unknown",
    why: `${told}; ${lost}`
  },
  "C35-early-ok-before-half-close-unary": {
    codes: { 1: Code.OK },
    why: "an early answer keeps its status and its message"
  },
  "C37-tunnel-ends-ok-inflight": {
    loses: { code: Code.OK, details: "" },
    codes: { 1: Code.UNAVAILABLE },
    why: lost
  },
  "C38-tunnel-ends-error-inflight": {
    loses: { code: Code.UNAVAILABLE, details: "bye" },
    codes: { 1: Code.UNAVAILABLE },
    why: lost
  },
  "C39-tcp-dies-inflight": {
    loses: { code: Code.UNAVAILABLE, details: "the connection broke" },
    codes: { 1: Code.UNAVAILABLE },
    why: lost
  },
  "C40-close-with-inflight": {
    closes: true,
    said: { 1: [opened, hi, "half-close", "cancel"] },
    codes: { 1: Code.UNAVAILABLE },
    why: `what the closing of a tunnel ends is cancelled on the wire too; ${lost}`
  },
  "C50-headers-only-then-cancelled-tunnel": {
    loses: { code: Code.PERMISSION_DENIED, details: "kicked" },
    codes: { 1: Code.UNAVAILABLE },
    why: lost
  },
  "R02-reverse-stop-inflight": {
    loses: { code: Code.OK, details: "" },
    said: { 1: [opened, "message  0 0 300 {} {} 0", "half-close"] },
    codes: { 1: Code.UNAVAILABLE },
    why: `${lost}; nothing is said to a peer that has left`
  },
  "R07-reverse-bad-settings": { refused: Code.INTERNAL, why: failsToOpen },
  "R09-reverse-network-server-closes-channel": {
    closes: true,
    codes: { 1: Code.UNAVAILABLE },
    why: lost
  }
}

/** What the recorded caller did beside sending messages, where our end says and reports the same. */
export const clientPlans: Readonly<Record<string, ClientPlan>> = {
  "C11-client-no-flow-control": { revisionZero: true },
  "C41-deadline": { deadline: 80 },
  "C42-cancel": { cancels: true },
  "C43-already-cancelled-context": { cancels: true },
  "G07-unary-100k-rev0": { revisionZero: true },
  "G08-deadline": { deadline: 80 },
  "R03-reverse-graceful-stop-idle": { deadline: 100 }
}
