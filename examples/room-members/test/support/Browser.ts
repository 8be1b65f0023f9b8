/**
 * A headless Chromium whose tabs can be opened, looked at and closed, over its debugging protocol.
 *
 * It is found by the variable CHROMIUM, or in the path as `chromium`, `chromium-browser` or `google-chrome`.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { createInterface } from "node:readline"
import { onTestFinished } from "vitest"

const names = ["chromium", "chromium-browser", "google-chrome"]

export const chromium: string | undefined =
  process.env["CHROMIUM"] ??
  (process.env["PATH"] ?? "")
    .split(delimiter)
    .flatMap((folder) => names.map((name) => join(folder, name)))
    .find((path) => existsSync(path))

export interface Tab {
  readonly close: () => Promise<void>
  /** Evaluates an expression in the page; a promise is waited for. */
  readonly evaluate: (expression: string) => Promise<unknown>
}

export interface Browser {
  /** Opens a tab, and does not wait for its answer. */
  readonly open: (url: string) => Promise<Tab>
  /** Opens a tab and waits until its page has been loaded. */
  readonly load: (url: string) => Promise<Tab>
  /** Ends the whole browser, as when it crashes. */
  readonly kill: () => Promise<void>
}

export const startBrowser = async (): Promise<Browser> => {
  const profile = mkdtempSync(join(tmpdir(), "room-members-browser-"))
  const child = spawn(
    chromium as string,
    [
      "--headless=new",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-dev-shm-usage",
      "--no-first-run",
      "--remote-debugging-port=0",
      `--user-data-dir=${profile}`,
      "about:blank"
    ],
    // A process group of its own: a browser is many processes.
    { stdio: ["ignore", "ignore", "pipe"], detached: true }
  )
  const ended = once(child, "close")
  const kill = async () => {
    try {
      process.kill(-(child.pid as number), "SIGKILL")
    } catch {
      // It has ended by itself.
    }
    await ended
  }
  onTestFinished(async () => {
    await kill()
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 })
  })
  for await (const line of createInterface(child.stderr)) {
    const found = /^DevTools listening on (ws:\S+)/.exec(line)
    if (found === null) continue
    child.stderr.resume()
    return { ...(await browserAt(found[1] as string)), kill }
  }
  throw new Error("The browser ended before it listened; start it by hand to see why.")
}

interface Answer {
  readonly id?: number
  readonly method?: string
  readonly sessionId?: unknown
  readonly result?: { readonly [key: string]: unknown }
  readonly error?: { readonly message: string }
}

const browserAt = async (address: string): Promise<Pick<Browser, "open" | "load">> => {
  const socket = new WebSocket(address)
  await new Promise((opened) => socket.addEventListener("open", opened, { once: true }))
  const listeners = new Set<(event: Answer) => void>()
  const asked = new Map<number, (answer: Answer) => void>()
  socket.addEventListener("message", ({ data }) => {
    const answer = JSON.parse(String(data)) as Answer
    if (answer.id !== undefined) asked.get(answer.id)?.(answer)
    for (const listener of listeners) listener(answer)
  })
  let ids = 0
  const command = async (
    method: string,
    params: object,
    sessionId?: unknown
  ): Promise<NonNullable<Answer["result"]>> => {
    const id = ++ids
    const answer = await new Promise<Answer>((resolve) => {
      asked.set(id, resolve)
      socket.send(JSON.stringify({ id, method, params, sessionId }))
    })
    asked.delete(id)
    if (answer.result === undefined) throw new Error(`${method}: ${answer.error?.message}`)
    return answer.result
  }
  const loaded = (sessionId: unknown) =>
    new Promise<void>((resolve) => {
      const listener = (event: Answer) => {
        if (event.method !== "Page.loadEventFired" || event.sessionId !== sessionId) return
        listeners.delete(listener)
        resolve()
      }
      listeners.add(listener)
    })
  const attach = async (targetId: unknown) => {
    const { sessionId } = await command("Target.attachToTarget", { targetId, flatten: true })
    const tab: Tab = {
      close: async () => void (await command("Target.closeTarget", { targetId })),
      evaluate: async (expression) => {
        const params = { expression, awaitPromise: true, returnByValue: true }
        const told = await command("Runtime.evaluate", params, sessionId)
        if (told["exceptionDetails"] !== undefined) throw new Error(JSON.stringify(told["exceptionDetails"]))
        return (told["result"] as { readonly value?: unknown }).value
      }
    }
    return { sessionId, tab }
  }
  return {
    open: async (url) => {
      const { targetId } = await command("Target.createTarget", { url })
      return (await attach(targetId)).tab
    },
    load: async (url) => {
      const { targetId } = await command("Target.createTarget", { url: "about:blank" })
      const { sessionId, tab } = await attach(targetId)
      await command("Page.enable", {}, sessionId)
      const load = loaded(sessionId)
      await command("Page.navigate", { url }, sessionId)
      await load
      return tab
    }
  }
}
