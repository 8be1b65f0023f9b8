/**
 * The exchange of a request that has no scope yet.
 *
 * Invariants
 * 1. What it can say and do by node's response alone, it does; everything else asks for the scope, and is that of the
 *    request's `ExchangeState` from then on.
 */
import type { CancelScope } from "@curfew/promise"
import type { CancelReason } from "@curfew/reason"
import type { Exchange } from "../Exchange.ts"
import { answerOn, type ExchangeState, finishOn } from "./exchange.ts"
import type { Light } from "./light.ts"

export class LightExchange implements Exchange {
  readonly #light: Light

  constructor(light: Light) {
    this.#light = light
  }

  get #scoped(): ExchangeState {
    return this.#light.scoped()
  }

  get id(): string {
    return this.#light.id
  }
  get name(): string | undefined {
    return this.#light.name
  }
  get clientGone(): boolean {
    return this.#light.gone
  }
  get clientSignal(): AbortSignal {
    return this.#scoped.clientSignal
  }
  get cancelled(): boolean {
    return this.#light.full?.cancelled ?? false
  }
  get reason(): CancelReason | undefined {
    return this.#light.full?.reason
  }
  get answer(): Exchange["answer"] {
    const light = this.#light
    return (...given) => light.full?.answer(...given) ?? answerOn(light.response, undefined, ...given)
  }
  get finish(): Exchange["finish"] {
    const light = this.#light
    return () => light.full?.finish() ?? finishOn(light.response, undefined)
  }
  get write(): Exchange["write"] {
    return this.#scoped.write
  }
  get signal(): AbortSignal {
    return this.#scoped.signal
  }
  get spawn(): CancelScope["spawn"] {
    return this.#scoped.spawn
  }
  get daemon(): CancelScope["daemon"] {
    return this.#scoped.daemon
  }
  get cancel(): CancelScope["cancel"] {
    return this.#scoped.cancel
  }
  get run(): CancelScope["run"] {
    return this.#scoped.run
  }
  get defer(): CancelScope["defer"] {
    return this.#scoped.defer
  }
  get onCancel(): CancelScope["onCancel"] {
    return this.#scoped.onCancel
  }
  get checkpoint(): CancelScope["checkpoint"] {
    return this.#scoped.checkpoint
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#scoped[Symbol.asyncDispose]()
  }
}
