/**
 * The exchange of a request that has no scope yet.
 *
 * Invariants
 * 1. What it can say and do by node's response alone, it does; everything else asks for the scope, and is that of the
 *    request's `ExchangeState` from then on.
 */
import type { Exchange } from "../Exchange.ts"
import { answerOn, type ExchangeState, finishOn } from "./exchange.ts"
import type { Light } from "./light.ts"
import { LightScope } from "./lightScope.ts"
import type { NodeResponse } from "./peer.ts"

interface Answering extends Light<ExchangeState> {
  readonly response: NodeResponse
}

export class LightExchange extends LightScope<Answering> implements Exchange {
  get id(): string {
    return this.light.id
  }
  get clientGone(): boolean {
    return this.light.gone
  }
  get clientSignal(): AbortSignal {
    return this.light.needed.clientSignal
  }
  get answer(): Exchange["answer"] {
    const { light } = this
    return (...given) => light.full?.answer(...given) ?? answerOn(light.response, undefined, ...given)
  }
  get finish(): Exchange["finish"] {
    const { light } = this
    return () => light.full?.finish() ?? finishOn(light.response, undefined)
  }
  get write(): Exchange["write"] {
    return this.light.needed.write
  }
}
