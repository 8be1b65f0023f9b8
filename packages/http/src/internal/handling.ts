/**
 * Promise handlers and plain blocks behind an edge.
 *
 * Invariants
 * 1. A promise handler runs in a cancel scope below the handler's fiber, and the edge waits for both.
 * 2. A block that was left by disposing its exchange ends its handler; one that is never disposed never ends it.
 * 3. What is refused at its start has an exchange that is over, or none where somebody expects to be told so by a throw.
 */
import { Cancelled, type CancelScope, cancelScope, promiseSettled, withCancelScope } from "@curfew/promise"
import { scopeHere } from "@curfew/promise/scopeHere"
import { CancelReason } from "@curfew/reason"
import { CurrentRequest } from "@curfew/request/RequestContext"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Exchange } from "../Exchange.ts"
import { deferred, settledThen } from "./bridge.ts"
import type { Edge, Spec } from "./edge.ts"
import { ExchangeState } from "./exchange.ts"
import { belongs, isCaught } from "./own.ts"
import type { NodeRequest, NodeResponse } from "./peer.ts"
import type { Port } from "./port.ts"

/** A promise handler as an effect. */
export const promiseHandler = (
  port: Port,
  response: NodeResponse,
  given: string | undefined,
  handle: (exchange: Exchange) => unknown
): Effect.Effect<unknown, unknown> => {
  // What is left behind is told by name, and most handlers have none.
  const name = given ?? port.method
  return Effect.contextWith((context: Context.Context<never>) =>
    promiseSettled(
      (signal) =>
        withCancelScope(
          (scope) => handle(new ExchangeState({ id: idOf(context), scope, port, response, context })),
          { signal, name }
        ),
      { name }
    )
  )
}

/** A request as a value, for a block that is left by disposing it. */
export const exchangeOf = (
  edge: Edge,
  request: NodeRequest,
  response: NodeResponse,
  spec: Spec
): Exchange => {
  const left = deferred<void>()
  let given: { readonly scope: CancelScope; readonly context: Context.Context<never> } | undefined
  let used: Port | undefined
  const call = edge.startNode(request, response, spec, (port) => {
    used = port
    const handler = Effect.flatMap(scopeHere({ name: spec.options.route }), (scope) =>
      Effect.contextWith((context: Context.Context<never>) => {
        given = { scope, context }
        return promiseSettled(() => left.promise, { name: spec.options.route })
      })
    )
    return { handler }
  })
  const port = used as unknown as Port
  if (given === undefined) {
    // Should its handler start later, it ends at once: nobody has what could end it.
    left.resolve()
    const reason = call.reason ?? CancelReason.Requested({ message: "the request was refused" })
    const cancelled = new Cancelled(reason)
    const scope = cancelScope({ signal: AbortSignal.abort(cancelled) })
    belongs(response, { reason })
    // Nothing is to begin that cannot go on. To whom nobody catches it, it is a value.
    if (isCaught(response)) throw cancelled
    return new ExchangeState({ id: call.id, scope, port, response, context: edge.context as never })
  }
  const { context, scope } = given
  belongs(response, scope)
  const end = (): Promise<void> => settledThen(scope[Symbol.asyncDispose](), left.resolve)
  return new ExchangeState({ id: call.id, scope, port, response, context, end })
}

const idOf = (context: Context.Context<never>): string => Context.get(context, CurrentRequest)?.id ?? ""
