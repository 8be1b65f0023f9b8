/** A process that calls and a process that is called, and what the two of them use for it. */
import type { ChannelOptions } from "@grpc/grpc-js"
import { Child } from "../harness/child.ts"
import type { Beside, BesideResult, Released, Transfer } from "./clientEnd.ts"
import type { Closed, ClosedResult, Open, OpenResult } from "./load.ts"

export type Kind = "direct" | "stubs" | "effect" | "bare" | "batches"

export interface WithCpu {
  /** Microseconds of both processes for a call. */
  readonly cpuPerCall: number
}

interface PairOptions {
  /** Of a direct channel. */
  readonly channelOptions?: ChannelOptions
  /** What lies between the two: gives the port to call instead. */
  readonly through?: (port: number) => Promise<number>
}

export class Pair implements AsyncDisposable {
  readonly client: Child
  readonly server: Child

  private constructor(client: Child, server: Child) {
    this.client = client
    this.server = server
  }

  /** Starts a server of this kind, and a client for it. */
  static async start(kind: Kind, { channelOptions = {}, through }: PairOptions = {}): Promise<Pair> {
    const server = await Child.start(new URL("./serverEnd.ts", import.meta.url), { args: [kind] })
    try {
      const port = await server.ask<number>("port")
      const args = [kind, String((await through?.(port)) ?? port), JSON.stringify(channelOptions)]
      return new Pair(await Child.start(new URL("./clientEnd.ts", import.meta.url), { args }), server)
    } catch (error) {
      await server.stop()
      throw error
    }
  }

  async closed(closed: Closed): Promise<ClosedResult & WithCpu> {
    const [result, server] = await this.#serverCpu(() => this.client.ask<ClosedResult>("closed", closed))
    return { ...result, cpuPerCall: (result.cpuMicros + server) / result.calls }
  }

  async open(open: Open): Promise<OpenResult & WithCpu> {
    const [result, server] = await this.#serverCpu(() => this.client.ask<OpenResult>("open", open))
    return { ...result, cpuPerCall: (result.cpuMicros + server) / result.completed }
  }

  transfer(transfer: Transfer & { readonly millis: number }): Promise<number> {
    return this.client.ask("transfer", transfer)
  }

  beside(beside: Beside): Promise<BesideResult> {
    return this.client.ask("beside", beside)
  }

  releases(count: number): Promise<Released> {
    return this.client.ask("releases", count)
  }

  async #serverCpu<A>(run: () => Promise<A>): Promise<readonly [A, number]> {
    const before = await this.server.cpu()
    const result = await run()
    return [result, (await this.server.cpu()) - before]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.stop()
    await this.server.stop()
  }
}
