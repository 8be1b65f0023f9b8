/**
 * All deadlines of a tunnel behind one timer.
 *
 * A timer per call costs more than the call's own bookkeeping, and a tunnel has many calls. The entries stand in a
 * binary heap; one fiber, owned by the tunnel, sleeps until the earliest.
 *
 * **Invariants**
 * 1. Times are monotonic milliseconds; the wall clock is not read here.
 * 2. A removed entry never fires and occupies no memory, however far away it was.
 * 3. An entry fires at most once, and never early.
 * 4. Only an entry that comes before everything that is slept for wakes the fiber. A sleep whose entry was removed runs
 *    out and finds the next one: calls that end in time, which most do, wake nobody.
 */
import * as Effect from "effect/Effect"

/** What has a deadline. It stands in the heap itself, as most of what a tunnel has open has one. */
export interface Due {
  readonly at: number
  readonly fire: () => void
  /** Where it stands in the heap, or a negative number; the heap's own. */
  index: number
}

export class Deadlines {
  private readonly heap: Array<Due> = []
  /** When the fiber looks again. */
  private sleepsUntil = Number.NEGATIVE_INFINITY
  private wake: (() => void) | undefined

  get size(): number {
    return this.heap.length
  }

  /** The fiber has been woken and has not looked yet: what it is about to find may be over already. */
  get woken(): boolean {
    return this.sleepsUntil === Number.NEGATIVE_INFINITY
  }

  add(entry: Due): void {
    entry.index = this.heap.length
    this.heap.push(entry)
    this.rise(entry)
    if (entry.at < this.sleepsUntil) {
      const wake = this.wake
      this.wake = undefined
      wake?.()
    }
  }

  remove(entry: Due): void {
    const { index } = entry
    if (index < 0) return
    entry.index = -1
    const last = this.heap.pop() as Due
    if (last === entry) return
    last.index = index
    this.heap[index] = last
    this.sink(last)
    this.rise(last)
  }

  private rise(entry: Due): void {
    while (entry.index > 0) {
      const parent = this.heap[(entry.index - 1) >> 1] as Due
      if (parent.at <= entry.at) return
      this.swap(parent, entry)
    }
  }

  private sink(entry: Due): void {
    for (;;) {
      const left = this.heap[entry.index * 2 + 1]
      const right = this.heap[entry.index * 2 + 2]
      if (left === undefined) return
      const child = right !== undefined && right.at < left.at ? right : left
      if (child.at >= entry.at) return
      this.swap(entry, child)
    }
  }

  /** Exchanges an entry with its child. */
  private swap(upper: Due, lower: Due): void {
    const { index } = upper
    upper.index = lower.index
    lower.index = index
    this.heap[upper.index] = upper
    this.heap[lower.index] = lower
  }

  private fireDue(now: number): void {
    for (let first = this.heap[0]; first !== undefined && first.at <= now; first = this.heap[0]) {
      this.remove(first)
      first.fire()
    }
  }

  /** Completes when an entry came that is due before the fiber looks again. */
  private readonly earlier: Effect.Effect<void> = Effect.callback<void>((resume) => {
    const wake = () => {
      this.sleepsUntil = Number.NEGATIVE_INFINITY
      resume(Effect.void)
    }
    this.wake = wake
    return Effect.sync(() => {
      if (this.wake === wake) this.wake = undefined
    })
  })

  /** Fires what is due, for as long as its owner lets it. */
  run(now: () => number): Effect.Effect<never> {
    return Effect.suspend(() => {
      // Whatever is added while entries fire is seen below.
      this.sleepsUntil = Number.NEGATIVE_INFINITY
      this.fireDue(now())
      const first = this.heap[0]
      this.sleepsUntil = first === undefined ? Number.POSITIVE_INFINITY : first.at
      if (first === undefined) return this.earlier
      return Effect.raceFirst(Effect.sleep(Math.max(1, first.at - now())), this.earlier)
    }).pipe(Effect.forever)
  }
}
