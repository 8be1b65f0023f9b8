/**
 * Which slots hold an exit for later, and which of them goes first.
 *
 * Invariants
 * 1. No timer: an exit that has expired is not handed out, and is taken out when somebody looks or something is added.
 * 2. With a capacity, the slots stand in the order of their last use, and the first one goes when there are too many.
 * 3. Without one, each addition looks at two others in turn, so that expired ones do not pile up.
 */
export interface Kept {
  readonly expired: (now: number) => boolean
  /** Lets the exit go; calls `remove`. */
  readonly evict: () => void
}

const lookedAt = 2

export class Retention {
  readonly #kept = new Set<Kept>()
  readonly #capacity: number

  constructor(capacity: number) {
    this.#capacity = capacity
  }

  get size(): number {
    return this.#kept.size
  }

  add(slot: Kept, now: number): void {
    this.#kept.add(slot)
    if (this.#capacity === Number.POSITIVE_INFINITY) this.#sweep(now)
    for (const first of this.#kept) {
      if (this.#kept.size <= this.#capacity) break
      first.evict()
    }
  }

  used(slot: Kept): void {
    if (this.#capacity === Number.POSITIVE_INFINITY) return
    this.#kept.delete(slot)
    this.#kept.add(slot)
  }

  remove(slot: Kept): void {
    this.#kept.delete(slot)
  }

  #sweep(now: number): void {
    let looked = 0
    for (const slot of this.#kept) {
      if (looked++ === lookedAt) break
      if (slot.expired(now)) slot.evict()
      else {
        this.#kept.delete(slot)
        this.#kept.add(slot)
      }
    }
  }

  /** Takes out everything that has expired. */
  purge(now: number): void {
    for (const slot of [...this.#kept]) if (slot.expired(now)) slot.evict()
  }
}
