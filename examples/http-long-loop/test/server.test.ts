import { once } from "node:events"
import http from "node:http"
import { request } from "undici"
import { describe, expect, test } from "vitest"
import { authorization, clients } from "./support/clients.ts"
import { runServer, startServer } from "./support/processes.ts"

const limit = 120_000
const all = 1_000_000_000_000
const endless = 100_000_000_000

const ask = async (url: string, token = authorization) => {
  const { body, statusCode } = await request(url, { headers: { authorization: token } })
  return { status: statusCode, body: await body.json() }
}

describe("the routes", { timeout: limit }, () => {
  test("answer", async () => {
    const { says, url } = await startServer()
    expect(await ask(`${url}/primes?below=1000`)).toEqual({ status: 200, body: { count: 168 } })
    await says(/http-1 {2}GET \/primes\?below=1000 200\n/)
    // What was tried is paid for, and only by who tried it.
    expect(await ask(`${url}/credit`)).toEqual({ status: 200, body: { credit: all - 1_000 } })
    expect(await ask(`${url}/credit`, "Bearer word")).toEqual({ status: 200, body: { credit: all } })
  })

  test("say what is wrong with a request", async () => {
    const { url } = await startServer()
    for (const below of ["", "?below=many", "?below=1", "?below=1.5"]) {
      expect((await ask(`${url}/primes${below}`)).status).toBe(400)
    }
    expect((await ask(`${url}/primes?below=${all + 1}`)).status).toBe(429)
    expect((await ask(`${url}/nowhere`)).status).toBe(404)
    expect((await ask(`${url}/toString`)).status).toBe(404)
    for (const token of ["", "Bearer", "Bearer Secret", "secret"]) {
      expect((await ask(`${url}/credit`, token)).status).toBe(401)
    }
  })

  test("refuse a body that is too large, and nobody pays for it", async () => {
    const { innerUrl, says, url } = await startServer()
    const headers = { authorization, "content-length": 8_000_000 }
    const asking = http.request(`${url}/primes?below=${endless}`, { method: "POST", headers })
    asking.on("error", () => {}).flushHeaders()
    const [answer] = (await once(asking, "response")) as [http.IncomingMessage]
    expect(answer.statusCode).toBe(413)
    answer.resume()
    await says(/POST \/primes\?below=100000000000 413: a body may have 1048576 bytes\n/)
    expect(await ask(`${url}/credit`)).toEqual({ status: 200, body: { credit: all } })
    expect(await ask(`${innerUrl}/status`)).toEqual({ status: 200, body: { inFlight: 0 } })
  })

  test("of the inner network are there for it alone, without a token", async () => {
    const { innerUrl, url } = await startServer()
    expect(await ask(`${innerUrl}/status`, "")).toEqual({ status: 200, body: { inFlight: 0 } })
    expect((await ask(`${url}/status`)).status).toBe(404)
  })
})

describe.each(clients)("%s that leaves", { timeout: limit }, (_, client, there) => {
  test.skipIf(!there).each([
    ["without a body", 0],
    ["with 1 MB that nobody reads", 1_000_000]
  ])("%s, ends the loop, and the clean-up has its data", async (_, bytes) => {
    const { innerUrl, says, url } = await startServer()
    const { leave } = await client(`${url}/primes?below=${endless}`, bytes)
    await says(/http-1 {2}ada begins, 100000000000\n/)
    // The loop lets others in.
    expect(await ask(`${innerUrl}/status`)).toEqual({ status: 200, body: { inFlight: 1 } })
    expect(await ask(`${url}/credit`)).toEqual({ status: 200, body: { credit: all - endless } })
    leave()
    const [, back = "", tried = ""] = await says(
      /http-1 {2}ada gets (\d+) back, stopped at (\d+): the client has gone \(http1.*\)\n/
    )
    expect(Number(back) + Number(tried)).toBe(endless)
    await says(/http-1 {2}(GET|POST) \/primes\?below=100000000000 499: the client has gone \(http1.*\)\n/)
    expect(await ask(`${url}/credit`)).toEqual({ status: 200, body: { credit: all - Number(tried) } })
    expect(await ask(`${innerUrl}/status`)).toEqual({ status: 200, body: { inFlight: 0 } })
    // And the server is as good as new.
    expect((await ask(`${url}/primes?below=100`)).body).toEqual({ count: 25 })
  })
})

describe("the command line", { timeout: limit }, () => {
  test.each([
    ["--port=many", '--port takes a whole number from 0 to 65535, not "many".'],
    ["--inner=65536", '--inner takes a whole number from 0 to 65535, not "65536".'],
    ["--users=ada", '--users takes names and tokens such as ada=secret,bob=word, not "ada".'],
    ["--nothing", "The flags are --port, --inner, --users."]
  ])("says what is wrong with %s", async (flag, problem) => {
    const server = runServer(flag)
    expect(await server.end).toBe(2)
    expect(server.output()).toContain(problem)
  })

  test("says that a port is taken, and ends", async () => {
    const { url } = await startServer()
    const second = runServer(`--port=${new URL(url).port}`, "--inner=0")
    expect(await second.end).toBe(1)
    expect(second.output()).toContain("EADDRINUSE")
  })
})

describe("a signal", { timeout: limit }, () => {
  test("ends a server that has only idle connections", async () => {
    const { end, kill, says, url } = await startServer()
    expect((await ask(`${url}/credit`)).status).toBe(200)
    kill("SIGTERM")
    await says(/Shutdown after SIGTERM in .* 0 cancelled, 0 abandoned\n/)
    expect(await end).toBe(0)
  })

  test("lets the loop go on, for as long as its client waits", async () => {
    const { end, kill, output, says, url } = await startServer()
    const answer = ask(`${url}/primes?below=2000000`)
    await says(/http-1 {2}ada begins/)
    kill("SIGTERM")
    expect(await answer).toEqual({ status: 200, body: { count: 148_933 } })
    expect(await end).toBe(0)
    expect(output()).toMatch(/http-1 {2}GET \/primes\?below=2000000 200\n/)
    expect(output()).toMatch(/ {2}drained .* GET \/primes +task\n/)
  })

  test("twice ends the loop, and its client is told", async () => {
    const { end, kill, says, url } = await startServer()
    const answer = request(`${url}/primes?below=${endless}`, { headers: { authorization } })
    await says(/http-1 {2}ada begins/)
    kill("SIGTERM")
    // Another signal, so that the two are not one that is still to be delivered.
    kill("SIGINT")
    const { body, statusCode } = await answer
    expect(statusCode).toBe(503)
    await body.dump()
    await says(/http-1 {2}ada gets \d+ back, stopped at \d+: the server is shutting down \(force\)\n/)
    await says(/ {2}cancelled .* GET \/primes +task\n/)
    expect(await end).toBe(0)
  })
})
