/**
 * The tasks of a world that wait for their turn.
 *
 * Invariants
 * 1. A lower priority number goes first; what is chosen from are the tasks of the lowest number.
 * 2. Without a choice the order is that in which they came.
 */
export interface Task {
  readonly run: () => void
  /** The dispatcher that it was scheduled on. */
  readonly owner: object
}

export class RunQueue {
  readonly #buckets = new Map<number, Array<Task>>()

  add(task: Task, priority: number): void {
    const bucket = this.#buckets.get(priority)
    if (bucket === undefined) this.#buckets.set(priority, [task])
    else bucket.push(task)
  }

  /** How many tasks there are to choose from. */
  get size(): number {
    return this.#first()?.length ?? 0
  }

  #first(): Array<Task> | undefined {
    let lowest: number | undefined
    for (const [priority, bucket] of this.#buckets) {
      if (bucket.length > 0 && (lowest === undefined || priority < lowest)) lowest = priority
    }
    return lowest === undefined ? undefined : this.#buckets.get(lowest)
  }

  /** Takes the next task: the first, or where there are several the one that is chosen. */
  take(choose: ((size: number) => number) | undefined): Task | undefined {
    const bucket = this.#first()
    if (bucket === undefined) return undefined
    if (bucket.length === 1 || choose === undefined) return bucket.shift()
    return bucket.splice(choose(bucket.length), 1)[0]
  }

  /** Takes the next task of one dispatcher. */
  takeOf(owner: object): Task | undefined {
    for (const bucket of this.#buckets.values()) {
      const index = bucket.findIndex((task) => task.owner === owner)
      if (index >= 0) return bucket.splice(index, 1)[0]
    }
    return undefined
  }

  clear(): void {
    this.#buckets.clear()
  }
}
