/**
 * What the windows of a tunnel's streams may grow to, one by one and together.
 *
 * **Invariants**
 * 1. What all streams have beyond their first windows stays within a limit: a stream takes of it and gives back once.
 * 2. What a method came to need is remembered for the tunnel's life, for so many methods.
 * 3. Towards a peer that knows of fixed windows only, nothing grows and no clock is read.
 */

/** Up to here a window grows whatever the round trip: in it two processes can work at the same time. */
const nearWindow = 262_144

/** From so many milliseconds on the peer is far away. */
const farRoundTrip = 5

/** So many methods have what they came to need remembered. */
const methodsKept = 256

export class Growth {
  /** What every stream starts with, and has for itself. */
  readonly base: number
  readonly agreed: boolean
  /** Monotonic milliseconds. */
  readonly now: () => number
  private readonly most: number
  private readonly together: number
  private used = 0
  private readonly needed = new Map<string, number>()

  /** The shortest way there and back that was seen, in milliseconds: no way at all before anything was seen. */
  roundTrip = 0
  private seen = false

  /** Without `most` nothing grows: the peer knows of fixed windows only. */
  constructor(base: number, most?: number, together = 0, now: () => number = () => 0) {
    this.agreed = most !== undefined
    this.now = now
    this.base = base
    this.most = most ?? base
    this.together = together
  }

  /** What is added to the first window of a stream, by what streams of its method came to need. */
  first(method: string): number {
    const wanted = this.needed.get(method)
    return wanted === undefined ? 0 : this.take(wanted - this.base)
  }

  /** What is added to a window that its stream has used up. */
  more(limit: number, method: string): number {
    const wanted = Math.min(limit * growthFactor, limit < this.near ? this.near : this.most)
    const extra = this.take(wanted - limit)
    if (extra > 0) this.remember(method, limit + extra)
    return extra
  }

  tookRoundTrip(millis: number): void {
    this.roundTrip = this.seen ? Math.min(this.roundTrip, millis) : millis
    this.seen = true
  }

  /** The peer is so far away that what it waits for costs more than what stands on the way. */
  get far(): boolean {
    return this.agreed && this.roundTrip >= farRoundTrip
  }

  get near(): number {
    return Math.min(nearWindow, this.most)
  }

  /** What streams have beyond their first windows. */
  get inUse(): number {
    return this.used
  }

  giveBack(limit: number): void {
    this.used -= limit - this.base
  }

  private take(wanted: number): number {
    const extra = Math.min(wanted, this.together - this.used)
    if (extra <= 0) return 0
    this.used += extra
    return extra
  }

  private remember(method: string, limit: number): void {
    if ((this.needed.get(method) ?? 0) >= limit) return
    const [oldest] = this.needed.keys()
    if (this.needed.size >= methodsKept && oldest !== undefined) this.needed.delete(oldest)
    this.needed.set(method, limit)
  }
}

/** A window that is used up grows so many times as large. */
const growthFactor = 4
