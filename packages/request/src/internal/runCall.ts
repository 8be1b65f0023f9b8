/**
 * Starting a call and waiting for its answer, in one operation.
 *
 * Invariants
 * 1. Between the start of the handler and the wait for it there is no point at which an interrupt could fall.
 * 2. What was over before it began does not start.
 */
import { toCause } from "@curfew/reason"
import { cancelledAboveUnsafe, inlineUnsafe, interruptsOfUnsafe } from "@curfew/reason/CancelCell"
import { IllegalArgument, type Owner } from "@curfew/scope"
import { instantUnsafe, millisUnsafe } from "@curfew/scope/Argument"
import * as Child from "@curfew/scope/Child"
import * as Instant from "@curfew/scope/Instant"
import { ownerOfUnsafe } from "@curfew/scope/Owner"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Answer, EndpointOptions } from "../Endpoint.ts"
import { DefaultOnDisconnect, type OnDisconnect, policyOf } from "../OnDisconnect.ts"
import { type CallState, makeCall } from "./call.ts"
import { deadlineReason } from "./deadline.ts"
import type { Peer } from "./peer.ts"

export const runCall = <A, E, R, R2>(
  handler: Effect.Effect<A, E, R>,
  options: EndpointOptions<A, E, R2>
): Effect.Effect<Answer<A, E>, never, R | R2 | Owner> =>
  Effect.withFiber((waiter): Effect.Effect<Answer<A, E>, never, R | R2 | Owner> => {
    const ancestor = cancelledAboveUnsafe(waiter)
    if (ancestor !== undefined) return Effect.failCause(toCause(ancestor))
    const policy = options.policy ?? policyOf(handler) ?? waiter.getRef(DefaultOnDisconnect)(options)
    check(policy)
    if (options.deadline !== undefined) instantUnsafe("the deadline of the call", options.deadline)
    const over = overBefore(waiter, options, policy)
    if (over !== undefined) return Effect.succeed(over)
    // The waiter's context has what handler and receiver need; from here on the types need not say so.
    const owner = options.owner ?? ownerOfUnsafe(waiter.context)
    const call = makeCall(waiter, options as EndpointOptions<A, E, never>, policy, owner)
    call.start(handler as Effect.Effect<A, E>)
    // An interrupt that the handler sent to its edge would find nobody to abandon the call. And a stream that failed at
    // once would have its transport broken off in the turn in which its first parts were written, which takes them along.
    const atOnce = call.kind === "request" && call.ended && interruptsOfUnsafe(waiter) === undefined
    return inlineUnsafe(waiter, atOnce ? call.conclude() : awaiting(waiter, call))
  })

const awaiting = <A, E>(
  waiter: Fiber.Fiber<unknown, unknown>,
  call: CallState<A, E>
): Effect.Effect<Answer<A, E>> =>
  Effect.callback<Answer<A, E>>((resume) => {
    const conclude = Effect.suspend(() => call.conclude())
    let told = call.ready
    if (told) waiter.currentDispatcher.scheduleTask(() => resume(conclude), 0)
    else
      call.listen(() => {
        if (told) return
        told = true
        Child.resumeWith(waiter, resume, conclude)
      })
    return Effect.suspend(() => call.abandon())
  })

/** A policy comes from a mark or a function of the program's; what is none must not be taken for one. */
export const check = (policy: OnDisconnect): void => {
  if (policy === "cancel" || policy === "shield" || policy === "detach") return
  if (typeof policy === "object" && policy !== null && "grace" in policy) {
    millisUnsafe("the grace of the call", policy.grace)
    return
  }
  throw new IllegalArgument({
    argument: "the policy of the call",
    value: policy,
    expected: '"cancel", "shield", "detach", or { grace: "30 seconds" }'
  })
}

const overBefore = (
  waiter: Fiber.Fiber<unknown, unknown>,
  options: Pick<EndpointOptions<never, never>, "peer" | "method" | "deadline" | "deadlineOrigin">,
  policy: OnDisconnect
): Answer<never, never> | undefined => {
  const { goneOnce, stopOnce } = options.peer as Peer
  if (stopOnce.value !== undefined) return { _tag: "Cancelled", reason: stopOnce.value }
  if (policy === "cancel" && goneOnce.value !== undefined) {
    return { _tag: "Dropped", reason: goneOnce.value, exit: Option.none() }
  }
  return options.deadline !== undefined && options.deadline <= Instant.nowUnsafe(waiter)
    ? { _tag: "Cancelled", reason: deadlineReason(waiter.getRef(Clock.Clock), options) }
    : undefined
}
