/**
 * A web-standard request as a port.
 *
 * Invariants
 * 1. The promise of the response settles once, whoever answers, and does not reject.
 * 2. The listener on the request's signal goes with the request.
 * 3. A response with a body is over when the body was read to its end, or the runtime cancelled it.
 */
import { type CancelScope, promiseSettled, withCancelScope } from "@curfew/promise"
import { CancelReason, fromAbort } from "@curfew/reason"
import { PeerSignal } from "@curfew/request"
import * as Effect from "effect/Effect"
import { deferred } from "./bridge.ts"
import type { Edge, Spec } from "./edge.ts"
import type { Port } from "./port.ts"

export const startWeb = (
  edge: Edge,
  spec: Spec,
  request: Request,
  handle: (request: Request, scope: CancelScope) => Response | PromiseLike<Response>
): Promise<Response> => {
  const { promise, resolve } = deferred<Response>()
  const peer = PeerSignal.makeUnsafe()
  const ears = new Set<() => void>()
  let over = false
  let status: number | undefined
  const end = (): void => {
    if (over) return
    over = true
    request.signal.removeEventListener("abort", aborted)
    for (const ear of [...ears]) ear()
  }
  let gone: CancelReason | undefined
  const aborted = (): void => {
    const said = fromAbort(request.signal.reason)
    const detail = said._tag === "Unknown" ? "aborted its request" : undefined
    const reason = CancelReason.ClientGone({ transport: "http1", ...(detail && { detail }) })
    if (peer.goneUnsafe(reason)) gone = reason
    end()
  }
  if (request.signal.aborted) aborted()
  else request.signal.addEventListener("abort", aborted, { once: true })
  const completed = (): void => {
    peer.completeUnsafe()
    end()
  }
  const give = (response: Response): void => {
    status ??= response.status
    if (response.body === null) completed()
    resolve(response.body === null ? response : watched(response, completed, aborted))
  }
  const port: Port = {
    method: request.method,
    url: pathOf(request.url),
    transport: "http1",
    peer,
    gone: () => gone,
    onOver: (ear) => {
      if (over) ear()
      else ears.add(ear)
      return () => {
        ears.delete(ear)
      }
    },
    header: (name) => request.headers.get(name) ?? undefined,
    status: () => status,
    respond: (code, sentence) =>
      Effect.sync(() => {
        if (status === undefined) give(new Response(`${sentence}\n`, { status: code }))
      }),
    drop: () => resolve(new Response(null, { status: 499 })),
    stopping: () => {},
    beat: () => Effect.void
  }
  const { route } = spec.options
  const handler = promiseSettled(
    (signal) => withCancelScope((scope) => handle(request, scope), { signal, name: route }),
    { name: route }
  )
  edge.start(port, spec, handler, { value: (response) => give(response as Response) })
  return promise
}

const pathOf = (url: string): string => {
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  return parsed === undefined ? url : `${parsed.pathname}${parsed.search}`
}

/** The same response, with an eye on how its body ends. */
const watched = (response: Response, completed: () => void, left: () => void): Response => {
  const body = response.body?.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({ flush: completed, cancel: left } as Transformer)
  )
  const { headers, status, statusText } = response
  return new Response(body ?? null, { status, statusText, headers })
}
