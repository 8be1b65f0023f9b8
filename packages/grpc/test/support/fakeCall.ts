/** Call objects in memory, as small as the edge needs them, whose client can leave at any moment. */
import { EventEmitter } from "node:events"
import { Metadata } from "@grpc/grpc-js"
import { Encoded } from "../../src/internal/server/requests.ts"
import { FakeClient } from "./fakeClient.ts"

export class FakeCall extends EventEmitter {
  readonly metadata = new Metadata()
  readonly request: unknown
  writableNeedDrain = false
  readonly #requests: Array<Encoded>
  readonly #client: FakeClient

  constructor(requests: ReadonlyArray<string>, done: (outcome: string) => void) {
    super()
    this.#requests = requests.map((text) => new Encoded(Buffer.from(text)))
    this.request = this.#requests[0]
    this.#client = new FakeClient(done)
    Object.assign(this, { [Symbol.for("curfew.transport")]: "tunnel" })
    this.on("error", (error: { readonly code: number }) => this.#client.end(`status ${error.code}`))
  }

  get sent(): Array<string> {
    return this.#client.sent
  }

  get cancelled(): boolean {
    return this.#client.cancelled
  }

  get outcome(): string | undefined {
    return this.#client.outcome
  }

  readonly getPeer = (): string => "fake"
  readonly getDeadline = (): number => Number.POSITIVE_INFINITY
  readonly sendMetadata = (): void => undefined

  readonly read = (): unknown => {
    const next = this.#requests.shift()
    if (next !== undefined) return next
    queueMicrotask(() => this.cancelled || this.emit("end"))
    return null
  }

  readonly write = (bytes: Buffer): boolean => {
    this.sent.push(bytes.toString())
    if (this.sent.length % 2 === 1) return true
    this.writableNeedDrain = true
    queueMicrotask(() => {
      if (this.cancelled) return
      this.writableNeedDrain = false
      this.emit("drain")
    })
    return false
  }

  readonly end = (): void => this.#client.end("status 0")

  readonly respond = (error: { readonly code: number } | null, value?: Buffer | null): void => {
    if (value) this.sent.push(value.toString())
    this.#client.end(`status ${error?.code ?? 0}`)
  }

  /** The client leaves. */
  readonly leave = (): void =>
    this.#client.gone((reason) => {
      this.emit("cancelled", reason)
      this.emit("close")
    })
}
