/**
 * A request as plain code has it.
 *
 * Invariants
 * 1. The scope is a child of the handler's fiber: what reaches the one reaches the other.
 * 2. Nothing is written to a response that is over, and what node throws at a write is an outcome.
 * 3. A write that waits for room also ends when the response is over: node leaves such writes hanging.
 */
import { Cancelled, type CancelScope } from "@curfew/promise"
import type { CancelReason } from "@curfew/reason"
import { send } from "@curfew/request"
import * as Child from "@curfew/scope/Child"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Delivery, Exchange } from "../Exchange.ts"
import { toPromise } from "./bridge.ts"
import { Delegate } from "./delegate.ts"
import type { NodeResponse } from "./peer.ts"
import type { Port } from "./port.ts"

const sent: Delivery = { _tag: "Sent" }
const answered: Delivery = { _tag: "Answered" }

type Writable = Pick<NodeResponse, "headersSent" | "writableEnded"> & {
  readonly writeHead: (status: number, headers?: Record<string, unknown>) => unknown
  readonly end: (body?: string | Uint8Array) => unknown
  readonly write: (part: string | Uint8Array) => boolean
  readonly once: (event: "drain", ear: () => void) => unknown
  readonly off: (event: "drain", ear: () => void) => unknown
}

/** Answers by a response of node, unless somebody has: `refused` is what is known to stand against it. */
export const answerOn = (
  given: NodeResponse | Writable,
  refused: Delivery | undefined,
  ...[status, body, headers]: Parameters<Exchange["answer"]>
): Delivery => {
  const response = given as Writable
  if (refused !== undefined) return refused
  if (response.writableEnded || response.headersSent) return answered
  response.writeHead(status, headers === undefined ? undefined : { ...headers })
  response.end(body)
  return sent
}

/** Ends an answer that was sent in parts. */
export const finishOn = (given: NodeResponse | Writable, refused: Delivery | undefined): Delivery => {
  const response = given as Writable
  if (refused !== undefined) return refused
  if (response.writableEnded) return answered
  response.end()
  return sent
}

export class ExchangeState extends Delegate implements Exchange {
  readonly id: string
  readonly #port: Port
  readonly #response: Writable
  readonly #context: Context.Context<never>
  readonly #end: (() => Promise<void>) | undefined
  #controller: AbortController | undefined

  constructor(given: {
    readonly id: string
    readonly scope: CancelScope
    readonly port: Port
    readonly response: NodeResponse
    readonly context: Context.Context<never>
    /** What disposing does, where it is not the scope's own end. */
    readonly end?: (() => Promise<void>) | undefined
  }) {
    super(given.scope)
    this.id = given.id
    this.#port = given.port
    this.#response = given.response as unknown as Writable
    this.#context = given.context
    this.#end = given.end
  }

  get clientGone(): boolean {
    return this.#port.peer.state === "gone"
  }

  get clientSignal(): AbortSignal {
    if (this.#controller === undefined) {
      const controller = new AbortController()
      this.#controller = controller
      this.#port.onOver(() => {
        const gone = this.#gone()
        if (gone !== undefined) controller.abort(new Cancelled(gone))
      })
    }
    return this.#controller.signal
  }

  #gone(): CancelReason | undefined {
    return this.#port.gone()
  }

  /** What stands against writing, if anything does. */
  #refused(): Delivery | undefined {
    const reason = this.#gone()
    if (reason !== undefined) return { _tag: "PeerGone", reason }
    return this.#port.peer.state === "completed" ? answered : undefined
  }

  readonly answer: Exchange["answer"] = (...given) => answerOn(this.#response, this.#refused(), ...given)

  readonly finish: Exchange["finish"] = () => finishOn(this.#response, this.#refused())

  readonly write: Exchange["write"] = (part) => {
    const write = Effect.callback<Delivery>((resume) => {
      const refused = this.#refused() ?? (this.#response.writableEnded ? answered : undefined)
      if (refused !== undefined || this.#response.write(part)) {
        resume(Effect.succeed(refused ?? sent))
        return undefined
      }
      const room = (): void => resume(Effect.succeed(sent))
      const over = this.#port.onOver(() => resume(Effect.succeed(this.#refused() ?? sent)))
      this.#response.once("drain", room)
      return Effect.sync(() => {
        over()
        this.#response.off("drain", room)
      })
    })
    const outcome = Effect.map(send(write, { peer: this.#port.peer }), (told) =>
      told._tag === "Sent" ? told.value : told
    )
    return toPromise(Child.startUnsafe(this.#context, outcome))
  }

  override [Symbol.asyncDispose](): Promise<void> {
    return this.#end === undefined ? super[Symbol.asyncDispose]() : this.#end()
  }
}
