/** Requests that are answered before their bodies have come. */
import { once } from "node:events"
import { type IncomingMessage, request } from "node:http"
import { type EdgeRecord, serve } from "@curfew/http"
import { expect, test } from "vitest"

test("a client that has read its refusal to the last byte, and closes, is told in the record by that status", async () => {
  let told = (_record: EdgeRecord) => {}
  const recorded = new Promise<EdgeRecord>((resolve) => {
    told = resolve
  })
  await using server = await serve((_request, response) => response.end(), {
    bodyBytes: 1_000,
    onRecord: (record) => told(record)
  })
  const headers = { "content-length": 5_000 }
  const asking = request({ port: server.port, method: "POST", headers, agent: false })
  asking.on("error", () => {}).flushHeaders()
  const [answer] = (await once(asking, "response")) as [IncomingMessage]
  expect(answer.statusCode).toBe(413)
  // Node's client closes by itself what the answer says will close, the body unsent.
  answer.resume()
  expect(await recorded).toMatchObject({ status: 413, reason: { _tag: "LimitExceeded" } })
})
