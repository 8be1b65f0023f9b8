/** Clients that ask for a count without an end, and leave. */
import { spawnSync } from "node:child_process"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Agent, request } from "undici"
import { onTestFinished } from "vitest"
import { run } from "./processes.ts"

export const authorization = "Bearer secret"

/** Starts a request with a body of so many bytes, or none; resolves with what makes it leave. */
type Client = (url: string, bytes: number) => Promise<{ readonly leave: () => void }>

const hasCurl = spawnSync("curl", ["--version"]).status === 0

const curl: Client = async (url, bytes) => {
  const folder = await mkdtemp(join(tmpdir(), "http-long-loop-"))
  onTestFinished(() => rm(folder, { recursive: true }))
  const body = join(folder, "body")
  await writeFile(body, Buffer.alloc(bytes))
  const upload = bytes === 0 ? [] : ["--data-binary", `@${body}`]
  const client = run(
    "curl",
    "--silent",
    "--no-buffer",
    "--header",
    `authorization: ${authorization}`,
    ...upload,
    url
  )
  // As Ctrl-C does.
  return { leave: () => client.kill("SIGINT") }
}

const undici: Client = async (url, bytes) => {
  const agent = new Agent()
  onTestFinished(() => agent.destroy())
  const leaving = new AbortController()
  const { signal } = leaving
  const answer = request(url, {
    dispatcher: agent,
    signal,
    headers: { authorization },
    ...(bytes === 0 ? {} : { method: "POST", body: Buffer.alloc(bytes) })
  })
  answer.catch(() => {})
  return { leave: () => leaving.abort() }
}

/** A process that says when it has sent its body to the last byte, and is killed. */
const killed: Client = async (url, bytes) => {
  const script = `
    const request = require("node:http").request(process.argv[1], {
      method: ${bytes === 0} ? "GET" : "POST", headers: { authorization: "${authorization}" }
    })
    request.on("finish", () => console.log("sent"))
    request.end(Buffer.alloc(${bytes}))
  `
  const client = run(process.execPath, "-e", script, url)
  await client.says(/sent\n/)
  return { leave: () => client.kill("SIGKILL") }
}

export const clients: ReadonlyArray<readonly [string, Client, boolean]> = [
  ["curl", curl, hasCurl],
  ["undici", undici, true],
  ["a process that is killed", killed, true]
]
