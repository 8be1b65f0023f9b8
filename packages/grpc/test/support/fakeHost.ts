import type { CancelReason } from "@curfew/reason"
import { Metadata } from "@grpc/grpc-js"
import { FakeClient } from "./fakeClient.ts"

/** What a handler's entrance for plain calls gives back. */
interface Receiver {
  readonly onMessage: (message: Buffer) => void
  readonly onEnd: () => void
  readonly onCancelled: (reason: CancelReason) => void
}

type Entrance = (host: FakeHost, request: Buffer | undefined) => Receiver

/** A plain call in memory, as a tunnel would offer it: each thing happens in a microtask of its own. */
export class FakeHost extends FakeClient {
  readonly metadata = new Metadata()
  readonly peer = "fake"
  readonly origin = { kind: "forward", peer: "fake", metadata: new Metadata(), secure: false } as const
  readonly deadline = Number.POSITIVE_INFINITY
  readonly clock = {}
  readonly object = {}
  /** Messages that are on their way out. */
  leaving = 0
  readonly #requests: Array<Buffer>
  #receiver: Receiver | undefined

  constructor(requests: ReadonlyArray<string>, done: (outcome: string) => void) {
    super(done)
    this.#requests = requests.map((text) => Buffer.from(text))
  }

  /** Calls a handler of an implementation at its entrance. */
  enter(handler: unknown, streams: boolean): void {
    const enter = (handler as Record<symbol, Entrance>)[Symbol.for("curfew.plain")] as Entrance
    this.#receiver = enter(this, streams ? undefined : this.#requests[0])
  }

  readonly header = (): undefined => undefined
  readonly sendHeaders = (): void => undefined

  readonly read = (): void => {
    const next = this.#requests.shift()
    queueMicrotask(() => {
      if (this.cancelled || this.outcome !== undefined) return
      if (next === undefined) this.#receiver?.onEnd()
      else this.#receiver?.onMessage(next)
    })
  }

  readonly sendMessage = (message: Buffer, callback: () => void): void => {
    this.leaving++
    this.sent.push(message.toString())
    queueMicrotask(() => {
      this.leaving--
      if (!this.cancelled) callback()
    })
  }

  readonly sendStatus = ({ code }: { readonly code: number }): void => this.end(`status ${code}`)

  /** The client leaves. */
  readonly leave = (): void => this.gone((reason) => this.#receiver?.onCancelled(reason))
}
