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
  /** Its neighbours among those that are kept, for `Retention` alone. */
  before?: Kept | undefined
  after?: Kept | undefined
}

const lookedAt = 2

/** Linked through themselves: a `Set` from which the first one goes again and again walks over all that have gone. */
export class Retention {
  #first: Kept | undefined = undefined
  #last: Kept | undefined = undefined
  #size = 0
  readonly #capacity: number

  constructor(capacity: number) {
    this.#capacity = capacity
  }

  get size(): number {
    return this.#size
  }

  add(slot: Kept, now: number): void {
    this.#append(slot)
    if (this.#capacity === Number.POSITIVE_INFINITY) this.#sweep(now)
    for (let first = this.#first; first !== undefined && this.#size > this.#capacity; first = this.#first)
      first.evict()
  }

  used(slot: Kept): void {
    if (this.#capacity === Number.POSITIVE_INFINITY || slot === this.#last) return
    this.remove(slot)
    this.#append(slot)
  }

  #append(slot: Kept): void {
    const last = this.#last
    slot.before = last
    if (last === undefined) this.#first = slot
    else last.after = slot
    this.#last = slot
    this.#size++
  }

  remove(slot: Kept): void {
    const { after, before } = slot
    if (before === undefined && this.#first !== slot) return
    if (before === undefined) this.#first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    slot.before = undefined
    slot.after = undefined
    this.#size--
  }

  #sweep(now: number): void {
    let slot = this.#first
    for (let looked = 0; slot !== undefined && looked < lookedAt; looked++) {
      const { after } = slot as Kept
      if (slot.expired(now)) slot.evict()
      else {
        this.remove(slot)
        this.#append(slot)
      }
      slot = after
    }
  }

  /** Takes out everything that has expired. */
  purge(now: number): void {
    const all: Array<Kept> = []
    for (let slot = this.#first; slot !== undefined; slot = slot.after) all.push(slot)
    for (const slot of all) if (slot.expired(now)) slot.evict()
  }
}
