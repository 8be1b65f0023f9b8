import { CancelReason } from "@curfew/reason"
import { Cancelled } from "./Cancelled.ts"

/**
 * What {@link clientGone} needs of a response: that of `node:http`, of `node:http2`'s compatible interface, of Express.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ClosingResponse {
  readonly writableFinished: boolean
  readonly closed?: boolean
  readonly req?: { readonly httpVersionMajor?: number }
  readonly once: (event: "close", listener: () => void) => unknown
}

/**
 * A signal that is aborted, with `ClientGone`, when the client leaves before its answer is out.
 *
 * **Guarantees**
 *
 * - **Completion is no cancel (L40)**: an answer that has gone out leaves the signal as it is.
 * - **Nothing left (L8)**: the one listener goes with the response.
 *
 * **When cancelled**
 *
 * It is the source of a cancel, and waits for nothing.
 *
 * **Gotchas**
 *
 * After the client has left, the handler's promise rejects with {@link Cancelled}. A server that answers rejections writes
 * into a closed connection then, which is harmless.
 *
 * **Example**
 *
 * ```ts
 * import { createServer } from "node:http"
 * import { clientGone, failAfter } from "@curfew/promise"
 *
 * const server = createServer(async (request, response) => {
 *   const work = async (signal: AbortSignal) => (signal.aborted ? "" : "hello")
 *   response.end(await failAfter(work, "5 seconds", { signal: clientGone(response) }))
 * })
 * await new Promise<void>((listening) => server.listen(0, listening))
 * const { port } = server.address() as { port: number }
 * const answer = await (await fetch(`http://localhost:${port}`)).text() // => "hello"
 * await new Promise((closed) => server.close(closed))
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const clientGone = (response: ClosingResponse): AbortSignal => {
  const controller = new AbortController()
  const closed = () => {
    if (response.writableFinished) return
    const transport = response.req?.httpVersionMajor === 2 ? "http2" : "http1"
    controller.abort(new Cancelled(CancelReason.ClientGone({ transport })))
  }
  if (response.closed === true) closed()
  else response.once("close", closed)
  return controller.signal
}
