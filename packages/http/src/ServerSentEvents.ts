import type { ServerResponse } from "node:http"
import type { Delivery, Exchange } from "./Exchange.ts"
import type { NodeResponse } from "./NodeEdge.ts"

/**
 * One event of a stream.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ServerEvent {
  /** Lines are sent as lines. */
  readonly data: string
  readonly event?: string | undefined
  /** What a client that comes back sends as `Last-Event-ID`. */
  readonly id?: string | undefined
  /** Milliseconds after which a client that was cut off comes back. */
  readonly retry?: number | undefined
}

/**
 * A stream of events to one client.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface EventStream {
  /** Sends an event, and waits until there is room for more or nobody is there to take it. */
  readonly send: (event: ServerEvent | string) => Promise<Delivery>
  /** The end of the stream. A browser comes back; answer it 204 to keep it away. */
  readonly end: () => Delivery
}

/**
 * Begins a stream of server-sent events as the answer of an exchange. Serve it as a `stream`: then the client's leaving
 * cancels the handler unless its policy says otherwise.
 *
 * **Guarantees**
 *
 * - **A value, not an exception (L41)**: `send` to a client that has gone is `PeerGone`.
 * - **Back pressure**: `send` resolves when node has room again; awaited, no more than node's buffer waits for a client.
 * - **Never stuck**: a `send` that waits for a client that leaves resolves, where node calls nobody back.
 *
 * **When cancelled**
 *
 * The handler is, as by its policy. The stream is broken off by a shutdown, and its client comes back to another server.
 *
 * **Gotchas**
 *
 * The `heartbeat` of the handler sends a comment where the stream is silent, which keeps proxies from closing it.
 *
 * **Example**
 *
 * ```ts
 * import { serve } from "@curfew/http"
 * import { eventStream } from "@curfew/http/ServerSentEvents"
 *
 * const server = await serve(
 *   async (_request, response, exchange) => {
 *     const events = eventStream(exchange, response)
 *     for (const word of ["one", "two"]) await events.send({ event: "word", data: word })
 *     events.end()
 *   },
 *   { kind: "stream", heartbeat: { every: "15 seconds" } }
 * )
 * const answer = await (await fetch(`http://localhost:${server.port}`)).text()
 * answer // => "event: word\ndata: one\n\nevent: word\ndata: two\n\n"
 * await server.shutdown()
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const eventStream = (exchange: Exchange, response: NodeResponse): EventStream => {
  if (!response.headersSent && !exchange.clientGone) {
    response.statusCode = 200
    response.setHeader("content-type", "text/event-stream; charset=utf-8")
    response.setHeader("cache-control", "no-cache, no-transform")
    // nginx holds an answer back until it is whole, unless it is told so.
    response.setHeader("x-accel-buffering", "no")
    ;(response as ServerResponse).flushHeaders()
  }
  return {
    send: (event) => exchange.write(encode(typeof event === "string" ? { data: event } : event)),
    end: () => exchange.finish()
  }
}

/** A line break in a field would begin another one. */
const oneLine = (field: string): string => field.replaceAll(/[\r\n\0]/g, " ")

const encode = ({ data, event, id, retry }: ServerEvent): string => {
  const lines: Array<string> = []
  if (event !== undefined) lines.push(`event: ${oneLine(event)}`)
  if (id !== undefined) lines.push(`id: ${oneLine(id)}`)
  if (retry !== undefined && Number.isInteger(retry)) lines.push(`retry: ${retry}`)
  for (const line of data.split(/\r\n|\r|\n/)) lines.push(`data: ${line}`)
  return `${lines.join("\n")}\n\n`
}
