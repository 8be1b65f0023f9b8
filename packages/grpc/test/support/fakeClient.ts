/** The client of a call in memory: what it got, how the call ended for it, and that it may leave at any moment. */
import { CancelReason } from "@curfew/reason"

export class FakeClient {
  readonly sent: Array<string> = []
  cancelled = false
  /** How it ended for its client: a status code, or that it left. */
  outcome: string | undefined
  readonly #done: (outcome: string) => void

  constructor(done: (outcome: string) => void) {
    this.#done = done
  }

  end(outcome: string): void {
    if (this.outcome !== undefined) return
    this.outcome = outcome
    this.#done(outcome)
  }

  /** The client leaves; its call is told. */
  gone(tell: (reason: CancelReason) => void): void {
    if (this.cancelled || this.outcome !== undefined) return
    this.cancelled = true
    tell(CancelReason.ClientGone({ transport: "tunnel" }))
    this.end("left")
  }
}
