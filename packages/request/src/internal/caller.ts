/**
 * What work takes with it when it starts on behalf of a request, under the key by which `@curfew/scope` reads it.
 *
 * Invariants
 * 1. Work that runs in its caller's context holds the caller's request from its start to its end.
 * 2. Work that runs in its owner's context holds nothing and finds nothing: `strip` takes the request out of it.
 * 3. What `hold` gives may be run any number of times and counts once.
 */
import { type Caller, CurrentCaller } from "@curfew/scope/Caller"
import * as Context from "effect/Context"

export { CurrentCaller }

/** Everything that a request puts into the context of its handler. */
export const requestKeys = {
  request: "@curfew/request/CurrentRequest",
  call: "@curfew/request/CurrentCall"
} as const

/** Takes the request out of a context, and the caller with it. */
export const strip: Caller["strip"] = (context) =>
  Context.omit(
    CurrentCaller,
    { key: requestKeys.request } as never,
    { key: requestKeys.call } as never
  )(context) as Context.Context<never>
