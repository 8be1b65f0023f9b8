/**
 * What `@hono/node-server` and its handlers say to each other beside the request and its response.
 *
 * Invariants
 * 1. Node's own request and response are known by what they have, not by who hands them over: an environment that has
 *    something else under these names is somebody else's.
 */
import type { NodeRequest, NodeResponse } from "./peer.ts"

/** What that server puts into the environment of a request. */
export interface Bindings {
  readonly incoming: NodeRequest
  readonly outgoing: NodeResponse
}

/** Node's own objects, where a runtime hands them over. */
export const bindingsOf = (environment: unknown): Bindings | undefined => {
  if (typeof environment !== "object" || environment === null) return undefined
  const { incoming, outgoing } = environment as Partial<Bindings>
  return typeof incoming?.httpVersionMajor === "number" && typeof outgoing?.writableEnded === "boolean"
    ? { incoming, outgoing }
    : undefined
}

/** By its header that server knows that the response of node is somebody else's to write. */
export const alreadySent = (): Response => {
  const response = new Response(null, { headers: { "x-hono-already-sent": "true" } })
  // It puts a class of its own in the place of `Response`, and looks at the header only once this was asked.
  return response.body === null ? response : new Response(null)
}
