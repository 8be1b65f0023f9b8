/**
 * What hands batch after batch to the carrier, driven by callbacks: no fiber wakes up for a batch.
 *
 * **Invariants**
 * 1. One batch is on its way at a time.
 * 2. A batch is encoded once the turn is over in which its first frame was queued, or when the intake ends a turn itself: the
 *    rest of the turn joins it, and a sender's callback never runs inside its send. Where there is nobody to gather frames
 *    from, the turn is taken for over when its operation is: then the bytes leave with what Node sends for what came, and
 *    the event loop goes round once less.
 * 3. It ends once the outbox is finished and empty, and what was written has been taken. Its tunnel waits for that end.
 */
import * as Effect from "effect/Effect"
import { afterTurn, afterTurns } from "./bridge.ts"
import type { Carrier } from "./carrier.ts"
import { Encoder } from "./encode.ts"
import type { Outbox } from "./writer.ts"

class Pump {
  private readonly outbox: Outbox
  private readonly carrier: Carrier
  private readonly over: (end: Effect.Effect<void>) => void
  private readonly encoder: Encoder
  private sent: Array<() => void> = []
  private due = false
  private writing = false

  constructor(outbox: Outbox, carrier: Carrier, over: (end: Effect.Effect<void>) => void) {
    this.outbox = outbox
    this.carrier = carrier
    this.over = over
    this.encoder = new Encoder(4096, carrier.framing)
  }

  /** There is something to do. */
  readonly schedule = (): void => {
    if (this.due || this.writing) return
    this.due = true
    if (this.outbox.alone()) afterTurn(this.turn)
    else afterTurns(1, this.turn)
  }

  readonly turn = (): void => {
    this.due = false
    // A flush came before the end of the turn.
    if (this.writing) return
    const { outbox } = this
    if (!outbox.hasWork) {
      if (outbox.isFinishing) this.over(Effect.void)
      return
    }
    this.writing = true
    outbox.setWriting(true)
    try {
      this.write()
    } catch (defect) {
      this.over(Effect.die(defect))
    }
  }

  private write(): void {
    const { carrier, encoder, outbox, sent } = this
    outbox.fill(encoder, sent)
    const bytes = encoder.take()
    if (sent.length > 0) {
      this.sent = []
      for (const onSent of sent) onSent()
    }
    if (bytes.length === 0) this.taken()
    else carrier.write(bytes, this.taken)
  }

  private readonly taken = (): void => {
    this.encoder.reset()
    this.writing = false
    this.outbox.setWriting(false)
    if (this.outbox.hasWork || this.outbox.isFinishing) this.schedule()
  }
}

/** Writes batch after batch until the outbox is finished and empty. */
export const run = (outbox: Outbox, carrier: Carrier): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const pump = new Pump(outbox, carrier, resume)
    outbox.onWork = pump.schedule
    outbox.onFlush = pump.turn
    if (outbox.hasWork || outbox.isFinishing) pump.schedule()
  })
