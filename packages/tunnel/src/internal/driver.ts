/**
 * What drives a stream at either end: the pure machine, fed with events.
 *
 * **Invariants**
 * 1. Events are processed one at a time, in the order in which they came, also when an action causes another.
 * 2. What ends the stream closes it after the last of them.
 */
import { CancelReason } from "@curfew/reason"
import type { Conclusion } from "./closing.ts"
import type { Due } from "./deadlines.ts"
import { IncomingStream } from "./incoming.ts"
import type { RpcStatus } from "./rpcStatus.ts"
import type { Numbered } from "./streams.ts"

export type { Conclusion } from "./closing.ts"

export abstract class StreamDriver<State, Event, Action> extends IncomingStream implements Numbered, Due {
  abstract readonly id: number
  sameSlot: Numbered | undefined
  /** When its deadline is due, and where that stands among the tunnel's: nowhere without one. */
  at = 0
  index = -1
  protected abstract state: State
  private pending: Array<Event> | undefined

  protected abstract step(state: State, event: Event): readonly [State, ReadonlyArray<Action>]
  protected abstract perform(action: Action): void
  protected abstract conclusion(before: State, after: State): Conclusion | undefined
  /** The deadline has passed. */
  abstract fire(): void

  protected releaseTimer(): void {
    this.link.deadlines.remove(this)
  }

  feed(event: Event): void {
    if (this.stepping) {
      if (this.pending === undefined) this.pending = [event]
      else this.pending.push(event)
      return
    }
    this.stepping = true
    this.process(event)
    this.settle()
  }

  /** The first state, with what it asks for. */
  protected enterState([state, actions]: readonly [State, ReadonlyArray<Action>]): void {
    this.stepping = true
    this.state = state
    for (const action of actions) this.perform(action)
    this.settle()
  }

  private process(event: Event): void {
    const before = this.state
    const [after, actions] = this.step(before, event)
    this.state = after
    const conclusion = this.conclusion(before, after)
    if (conclusion !== undefined) this.conclude(conclusion)
    for (const action of actions) this.perform(action)
  }

  private settle(): void {
    for (let next = 0; this.pending !== undefined && next < this.pending.length; next++)
      this.process(this.pending[next] as Event)
    this.pending = undefined
    this.stepping = false
    this.finishIfDue()
  }
}

/** The reason for a fault: the limit that was passed, or what was wrong. */
export const faultReason = (status: RpcStatus, limit: string | undefined): CancelReason =>
  limit === undefined
    ? CancelReason.Requested({ message: status.details })
    : CancelReason.LimitExceeded({ limit })
