import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, onTestFinished, test } from "vitest"
import { clientOf } from "./support/client.ts"

const main = fileURLToPath(new URL("../src/main.ts", import.meta.url))

const startProcess = async () => {
  const folder = await mkdtemp(join(tmpdir(), "custom-server-"))
  const journal = join(folder, "notes.txt")
  const child = spawn(process.execPath, ["-C", "@curfew/source", main, "0", journal])
  onTestFinished(async () => {
    child.kill("SIGKILL")
    await rm(folder, { recursive: true })
  })
  let output = ""
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk
    })
  }
  const end = once(child, "close").then(([code]) => code as number | null)
  const says = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const found = pattern.exec(output)
      if (found !== null) return found
      const ended = end.then(() => Promise.reject(new Error(`It never said ${pattern}:\n${output}`)))
      await Promise.race([once(child.stdout, "data"), once(child.stderr, "data"), ended])
    }
  }
  const [, port = ""] = await says(/Listens on 127\.0\.0\.1:(\d+)/)
  return { port: Number(port), journal, says, end, child, output: () => output }
}

test("the commands answer, and notes are stored", async () => {
  const { journal, port } = await startProcess()
  const client = await clientOf(port)
  client.say("primes 100", "primes many", "note hello there")
  expect(await client.hears()).toBe("OK 25 primes below 100")
  expect(await client.hears()).toBe("ERR write primes and a whole number of at most 15 digits")
  expect(await client.hears()).toBe("OK noted")
  expect(await readFile(journal, "utf8")).toBe("hello there\n")
})

test("a search goes on until the last of its clients has left, and stops there", async () => {
  const { output, port, says } = await startProcess()
  const line = "primes 999999999999999"
  const [first, second] = [await clientOf(port), await clientOf(port)]
  first.say("note first", line)
  expect(await first.hears()).toBe("OK noted")
  second.say("note second", line)
  expect(await second.hears()).toBe("OK noted")
  first.socket.destroy()
  await says(/primes 9{15}: dropped, the client has gone \(tcp\)\n/)
  // Answered in the middle of the search, which yields at its checkpoints.
  const other = await clientOf(port)
  other.say("primes 10")
  expect(await other.hears()).toBe("OK 4 primes below 10")
  expect(output()).not.toContain("stopped")
  second.socket.destroy()
  await says(/primes 9{15}: stopped at \d+, nobody waits for it any more\n/)
  expect(output().match(/stopped/g)).toHaveLength(1)
})

test("Ctrl-C ends it, with a report", async () => {
  const { child, end, port, says } = await startProcess()
  const client = await clientOf(port)
  client.say("note there")
  expect(await client.hears()).toBe("OK noted")
  child.kill("SIGINT")
  expect(await client.hears()).toBeUndefined()
  await says(/Shutdown after SIGINT in .* 0 abandoned/)
  expect(await end).toBe(0)
})
