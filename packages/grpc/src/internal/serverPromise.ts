/**
 * Promise-style handlers as Effects.
 *
 * Invariants
 * 1. What the promise is rejected with is the failure of the effect: the edge makes a status of it like of any other.
 */
import * as Effect from "effect/Effect"
import type { ServerCall } from "../ServerCall.ts"
import { settle } from "./serverBridge.ts"

export const adaptPromise =
  <Request, Response>(
    handler: (
      request: Request,
      context: { readonly signal: AbortSignal; readonly call: ServerCall }
    ) => PromiseLike<Response>
  ) =>
  (request: Request, call: ServerCall): Effect.Effect<Response, unknown> =>
    Effect.suspend(() => settle((signal) => handler(request, { signal, call }), call.method))
