import { Child, type Memory } from "../harness/child.ts"
import type { Kind } from "./service.ts"

/** A client and a server, connected, and what both use of a thing together. */
export class Pair {
  readonly client: Child
  readonly server: Child
  #open = 0

  private constructor(client: Child, server: Child) {
    this.client = client
    this.server = server
  }

  static async start(kind: Kind, nodeArgs: ReadonlyArray<string> = []): Promise<Pair> {
    const [client, server] = await Promise.all(
      ["./clientEnd.ts", "./serverEnd.ts"].map((name) =>
        Child.start(new URL(name, import.meta.url), { nodeArgs })
      )
    )
    const pair = new Pair(client as Child, server as Child)
    try {
      const port = await pair.server.ask<number>("listen", kind)
      await pair.client.ask("connect", { kind, port })
      return pair
    } catch (error) {
      await pair.stop()
      throw error
    }
  }

  /** What is held in both, once garbage has been collected. */
  async memory(): Promise<{ readonly client: Memory; readonly server: Memory }> {
    const [client, server] = await Promise.all([this.client.memory(), this.server.memory()])
    return { client, server }
  }

  async cpu(): Promise<number> {
    const [client, server] = await Promise.all([this.client.cpu(), this.server.cpu()])
    return client + server
  }

  /** Opens streams beside those that are open, and sees that each has a handler. */
  async open(count: number): Promise<void> {
    await this.client.ask("open", count)
    this.#open += count
    const { open } = await this.server.ask<{ readonly open: number }>("handlers")
    if (open !== this.#open)
      throw new Error(`A wrong result: ${open} handlers run for ${this.#open} streams.`)
  }

  /** Closes all streams, and waits until no handler is left. */
  async close(): Promise<void> {
    await this.client.ask("close")
    this.#open = 0
    await this.settled()
  }

  async settled(): Promise<number> {
    for (let i = 0; i < 200; i++) {
      const { begun, open } = await this.server.ask<{ readonly begun: number; readonly open: number }>(
        "handlers"
      )
      if (open === 0) return begun
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
    throw new Error("A wrong result: handlers of cancelled calls still run after five seconds.")
  }

  async stop(): Promise<void> {
    await Promise.all([this.client.stop(), this.server.stop()])
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}
