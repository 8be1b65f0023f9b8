/** Call objects in memory, as small as the edge needs them, whose client can leave at any moment. */
import { EventEmitter } from "node:events"
import { CancelReason } from "@curfew/reason"
import { Metadata } from "@grpc/grpc-js"
import { Encoded } from "../../src/internal/serverRequests.ts"

export class FakeCall extends EventEmitter {
  readonly metadata = new Metadata()
  readonly sent: Array<string> = []
  readonly request: unknown
  cancelled = false
  writableNeedDrain = false
  /** How it ended for its client: a status code, or that it left. */
  outcome: string | undefined
  readonly #requests: Array<Encoded>
  readonly #done: (outcome: string) => void

  constructor(requests: ReadonlyArray<string>, done: (outcome: string) => void) {
    super()
    this.#requests = requests.map((text) => new Encoded(Buffer.from(text)))
    this.request = this.#requests[0]
    this.#done = done
    Object.assign(this, { [Symbol.for("curfew.transport")]: "tunnel" })
    this.on("error", (error: { readonly code: number }) => this.#end(`status ${error.code}`))
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

  readonly end = (): void => this.#end("status 0")

  readonly respond = (error: { readonly code: number } | null, value?: Buffer | null): void => {
    if (value) this.sent.push(value.toString())
    this.#end(`status ${error?.code ?? 0}`)
  }

  #end(outcome: string): void {
    if (this.outcome !== undefined) return
    this.outcome = outcome
    this.#done(outcome)
  }

  /** The client leaves. */
  readonly leave = (): void => {
    if (this.cancelled || this.outcome !== undefined) return
    this.cancelled = true
    this.emit("cancelled", CancelReason.ClientGone({ transport: "tunnel" }))
    this.emit("close")
    this.#end("left")
  }
}
