/**
 * What stands between the carrier and the engine of an end: frames that came together are not all handled in one turn.
 *
 * A busy peer's batch holds the calls of all its callers. Handled in one go, every answer would leave in one batch too, and
 * so on: each end would rest while the other works. So a turn handles some frames of what has come, and the rest waits
 * until what these caused has been written. Two ends keep two processors busy that way.
 *
 * **Invariants**
 * 1. Frames and pieces go on in the order in which they came: nothing overtakes what waits.
 * 2. Between two turns of what waits, what the first one queued is written.
 * 3. What waits is no more than twice what can arrive in a turn of the event loop: each turn handles half of it at least.
 * 4. The end of the carrier comes behind everything that came before it.
 * 5. Where nobody takes turns, the end of one is looked at now and then: each look keeps the event loop from its rest.
 * 6. The tunnel owns it: once it is stopped, nothing waits, nothing is scheduled, and nothing is handed on.
 */
import type { OnFrame } from "./batch.ts"
import type { OnPiece } from "./messages.ts"

/**
 * Frames that are handled in one turn. A small call is three in each direction. Fewer cost more writes than they gain;
 * twice as many, and sixty-four callers are hardly enough to keep both ends at work.
 */
export const framesPerTurn = 48

interface Waiting {
  readonly bytes: Buffer
  readonly start: number
  readonly end: number
  /** What it is a piece of, and of what size, where it is no frame. */
  readonly piece: { readonly id: number; readonly size: number } | undefined
}

export class Intake {
  private readonly take: OnFrame
  private readonly takePiece: OnPiece
  private readonly flush: () => void
  private readonly alone: () => boolean
  private waiting: Array<Waiting> = []
  private at = 0
  /** Frames handled since the end of a turn was looked at. */
  private taken = 0
  private due: NodeJS.Immediate | undefined
  private stopped = false

  /**
   * @param flush writes what is queued for the peer, now
   * @param alone whether there is nobody to take turns with
   */
  constructor(take: OnFrame, takePiece: OnPiece, flush: () => void, alone: () => boolean = () => false) {
    this.take = take
    this.takePiece = takePiece
    this.flush = flush
    this.alone = alone
  }

  readonly frame: OnFrame = (bytes, start = 0, end = bytes.length) => {
    if (this.stopped) return
    if (this.at === this.waiting.length && this.taken < framesPerTurn) {
      this.noteTaken()
      this.take(bytes, start, end)
    } else this.waiting.push({ bytes, start, end, piece: undefined })
  }

  /** Pieces are long, and few of them come in a turn: they are not counted. */
  readonly piece: OnPiece = (id, size, data) => {
    if (this.stopped) return
    if (this.at === this.waiting.length) this.takePiece(id, size, data)
    else this.waiting.push({ bytes: data, start: 0, end: data.length, piece: { id, size } })
  }

  /** Hands out everything that waits: the carrier has ended. */
  drain(): void {
    this.hand(Number.POSITIVE_INFINITY)
  }

  /** Forgets what waits: the tunnel is over, and would not look at it. */
  stop(): void {
    if (this.due !== undefined) clearImmediate(this.due)
    this.stopped = true
    this.forget()
  }

  private noteTaken(): void {
    this.taken++
    if (this.due !== undefined || (this.taken < framesPerTurn / 2 && this.alone())) return
    this.due = setImmediate(this.turnEnds)
  }

  /** A turn is over: what it caused is handed to the transport, which sends it when the event loop has gone round. */
  private readonly turnEnds = (): void => {
    if (this.at === this.waiting.length) {
      this.due = undefined
      this.taken = 0
      return
    }
    this.due = setImmediate(this.goOn)
    this.flush()
  }

  private readonly goOn = (): void => {
    this.due = setImmediate(this.turnEnds)
    this.taken = 0
    this.hand(Math.max(framesPerTurn, Math.ceil((this.waiting.length - this.at) / 2)))
  }

  /** Handling a frame may end the carrier, which hands out the rest from within. */
  private hand(most: number): void {
    for (let count = 0; count < most && this.at < this.waiting.length; count++) {
      const { bytes, end, piece, start } = this.waiting[this.at++] as Waiting
      if (piece !== undefined) this.takePiece(piece.id, piece.size, bytes)
      else {
        this.noteTaken()
        this.take(bytes, start, end)
      }
    }
    if (this.at === this.waiting.length) this.forget()
  }

  private forget(): void {
    this.waiting = []
    this.at = 0
  }
}
