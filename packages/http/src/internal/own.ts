/**
 * Which cancellation is a request's own.
 *
 * Invariants
 * 1. A request is known by its response, the one object that its listener and its scopes have in common.
 * 2. Of a `Cancelled` that is its own there is nobody to tell: its client has gone, or the edge answers.
 */
import { isCancelled } from "@curfew/promise"
import type { CancelReason } from "@curfew/reason"
import type { NodeResponse } from "./peer.ts"

interface Scope {
  readonly reason: CancelReason | undefined
}

const scopes = /* @__PURE__ */ new WeakMap<NodeResponse, Array<Scope>>()

const caught = /* @__PURE__ */ new WeakSet<NodeResponse>()

/** From here on a block of this request may be left before it begins. */
export const willCatch = (response: NodeResponse): void => {
  caught.add(response)
}

export const isCaught = (response: NodeResponse): boolean => caught.has(response)

/** A scope of this request. */
export const belongs = (response: NodeResponse, scope: Scope): void => {
  const known = scopes.get(response)
  if (known === undefined) scopes.set(response, [scope])
  else known.push(scope)
}

export const isOwn = (response: NodeResponse, error: unknown): boolean =>
  isCancelled(error) && scopes.get(response)?.some(({ reason }) => reason === error.reason) === true
