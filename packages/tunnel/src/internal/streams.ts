/**
 * The streams of a tunnel: in the order in which they came, and by their ids.
 *
 * A `Set` and a `Map` would do, if they were not as long-lived as the tunnel and as busy as its calls: the tables that
 * they outgrow keep what was in them alive, so that calls which are over reach the old generation of the heap. Here a
 * stream carries its links itself, and what is over is held by nobody.
 *
 * **Invariants**
 * 1. A stream is in a list, or in a table, once or not at all; taking out what is not in it does nothing.
 * 2. Adding, finding and taking out cost the same however many there are: ids come in order, so neighbours fall into
 *    neighbouring slots, and the table has at least as many slots as streams.
 */

/** What stands in a {@link StreamList}. */
export interface Listed {
  before: Listed | undefined
  after: Listed | undefined
  listed: boolean
}

/** The streams in the order in which they came. */
export class StreamList<T extends Listed> implements Iterable<T> {
  private first: T | undefined
  private last: T | undefined

  add(stream: T): void {
    if (stream.listed) return
    stream.listed = true
    stream.before = this.last
    if (this.last === undefined) this.first = stream
    else this.last.after = stream
    this.last = stream
  }

  delete(stream: T): void {
    if (!stream.listed) return
    stream.listed = false
    const { after, before } = stream
    if (before === undefined) this.first = after as T | undefined
    else before.after = after
    if (after === undefined) this.last = before as T | undefined
    else after.before = before
    stream.before = undefined
    stream.after = undefined
  }

  /** Whether there are two at most: a call, and one that its end has caused before it is taken out. */
  get few(): boolean {
    return this.first?.after?.after === undefined
  }

  /** Whoever takes streams out while walking takes a copy first. */
  *[Symbol.iterator](): Iterator<T> {
    for (let stream = this.first; stream !== undefined; stream = stream.after as T | undefined) yield stream
  }
}

/** What stands in a {@link StreamTable}. */
export interface Numbered {
  readonly id: number
  sameSlot: Numbered | undefined
}

const leastSlots = 64

/** The streams by their ids. */
export class StreamTable<T extends Numbered> {
  private slots: Array<T | undefined> = new Array(leastSlots).fill(undefined)
  size = 0

  private slotOf(id: number): number {
    // Ids may be larger than what fits into 32 bits; the lower ones tell neighbours apart.
    return id % this.slots.length
  }

  get(id: number): T | undefined {
    let found: Numbered | undefined = this.slots[this.slotOf(id)]
    while (found !== undefined && found.id !== id) found = found.sameSlot
    return found as T | undefined
  }

  /** Adds a stream whose id is in no stream here. */
  add(stream: T): void {
    if (this.size === this.slots.length) this.resize(this.size * 4)
    this.put(stream)
    this.size++
  }

  private put(stream: T): void {
    const slot = this.slotOf(stream.id)
    stream.sameSlot = this.slots[slot]
    this.slots[slot] = stream
  }

  private resize(length: number): void {
    const former = this.slots
    this.slots = new Array(length).fill(undefined)
    for (const first of former) {
      for (let stream: T | undefined = first; stream !== undefined; ) {
        const next = stream.sameSlot as T | undefined
        this.put(stream)
        stream = next
      }
    }
  }

  delete(id: number): void {
    const slot = this.slotOf(id)
    let before: Numbered | undefined
    let stream: Numbered | undefined = this.slots[slot]
    while (stream !== undefined && stream.id !== id) {
      before = stream
      stream = stream.sameSlot
    }
    if (stream === undefined) return
    if (before === undefined) this.slots[slot] = stream.sameSlot as T | undefined
    else before.sameSlot = stream.sameSlot
    stream.sameSlot = undefined
    this.size--
    if (this.size * 16 < this.slots.length && this.slots.length > leastSlots)
      this.resize(Math.max(leastSlots, this.slots.length >> 2))
  }
}
