/**
 * Tunnels that calls are spread over, and who waits for one.
 *
 * **Invariants**
 * 1. A pick gives only a tunnel that is open, is not draining and is below its limit of streams.
 * 2. Who waits gets its tunnel in the turn in which one can take a call, in the order of arrival, and has placed its
 *    call before the next one is asked: the last free stream is never given twice.
 * 3. A policy that throws costs the call that it was asked for, and nobody else.
 * 4. Turns are taken among the tunnels that can be picked; a tunnel that comes or goes disturbs nobody else's turn.
 */
import type { CallToPlace, LoadedTunnel, Policy } from "../Picking.ts"
import type { ClientEngine } from "./clientEngine.ts"

/** A tunnel of a pool. */
export interface Pooled<T extends LoadedTunnel = LoadedTunnel> {
  readonly tunnel: T
  readonly engine: ClientEngine
}

const isFull = ({ link, size }: ClientEngine): boolean => size >= link.limits.maxStreams

const canTake = (engine: ClientEngine): boolean => engine.available && !isFull(engine)

export interface Waiter<T extends LoadedTunnel> {
  readonly policy: Policy<T>
  readonly call: CallToPlace
  readonly place: (pooled: Pooled<T>) => void
  /** The policy threw. */
  readonly fail: (error: unknown) => void
}

export class Pool<T extends LoadedTunnel> {
  readonly members: Array<Pooled<T>> = []
  private readonly waiters = new Set<Waiter<T>>()
  private turn = 0

  /** Nobody is in it and nobody waits. */
  get unused(): boolean {
    return this.members.length === 0 && this.waiters.size === 0
  }

  add(member: Pooled<T>): void {
    this.members.push(member)
  }

  remove(member: Pooled<T>): void {
    const index = this.members.indexOf(member)
    if (index < 0) return
    this.members.splice(index, 1)
    if (index < this.turn) this.turn--
  }

  get ready(): boolean {
    return this.members.some(({ engine }) => canTake(engine))
  }

  /** There are open tunnels, and each has as many streams as it may. */
  get full(): boolean {
    return !this.ready && this.members.some(({ engine }) => engine.available)
  }

  pick(policy: Policy<T>, call: CallToPlace): Pooled<T> | undefined {
    if (policy === "roundRobin") return this.next(() => false)
    if (policy === "leastLoaded") {
      let least = Number.POSITIVE_INFINITY
      for (const { engine } of this.members) {
        if (canTake(engine)) least = Math.min(least, engine.size)
      }
      // Among equals they take turns.
      return this.next(({ engine }) => engine.size > least)
    }
    const candidates = this.members.filter(({ engine }) => canTake(engine))
    if (candidates.length === 0) return undefined
    const chosen = policy(
      candidates.map(({ tunnel }) => tunnel),
      call
    )
    return candidates.find(({ tunnel }) => tunnel === chosen)
  }

  private next(skip: (member: Pooled<T>) => boolean): Pooled<T> | undefined {
    const { length } = this.members
    for (let step = 0; step < length; step++) {
      const index = (this.turn + step) % length
      const member = this.members[index] as Pooled<T>
      if (!canTake(member.engine) || skip(member)) continue
      this.turn = (index + 1) % length
      return member
    }
    return undefined
  }

  /** Places a call as soon as a tunnel can take it, which may be now. Gives how to stop waiting. */
  wait(waiter: Waiter<T>): () => void {
    this.waiters.add(waiter)
    this.serve(waiter)
    return () => this.waiters.delete(waiter)
  }

  /** Something has changed: a tunnel came, or a stream of one ended. */
  notify(): void {
    for (const waiter of [...this.waiters]) {
      // Whoever waits is asked one by one, and in vain once nothing can take a call: thousands may wait.
      if (!this.ready) return
      this.serve(waiter)
    }
  }

  private serve(waiter: Waiter<T>): void {
    if (!this.waiters.has(waiter)) return
    let pooled: Pooled<T> | undefined
    try {
      pooled = this.pick(waiter.policy, waiter.call)
    } catch (error) {
      this.waiters.delete(waiter)
      waiter.fail(error)
      return
    }
    if (pooled === undefined) return
    this.waiters.delete(waiter)
    waiter.place(pooled)
  }
}
