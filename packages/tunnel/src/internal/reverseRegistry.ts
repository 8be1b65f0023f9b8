/**
 * The reverse tunnels that are ready, in all and by key.
 *
 * **Invariants**
 * 1. A tunnel is listed from before `onReverseOpen` is called until before `onReverseClose` is; who waits for a
 *    tunnel is resumed after the callback.
 * 2. What can be picked, and in which turn, is the pool's to say.
 * 3. A key without tunnels and without waiters occupies no memory.
 * 4. Changes are numbered without gaps, so that a reader who fell behind sees that it did.
 */
import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"
import type { CallToPlace, Policy } from "../Picking.ts"
import type { ReverseChange, ReverseTunnel } from "../ReverseTunnels.ts"
import { Pool, type Pooled, type Waiter } from "./pool.ts"

/** How many changes a reader may be behind. */
export const changesKept = 1024

export class ReverseRegistry<I> {
  private readonly all = new Pool<ReverseTunnel<I>>()
  private readonly byKey = new Map<string, Pool<ReverseTunnel<I>>>()
  private readonly watchers = new Set<() => void>()
  private readonly changes: PubSub.PubSub<ReverseChange<I>>
  private sequence = 0

  constructor(changes: PubSub.PubSub<ReverseChange<I>>) {
    this.changes = changes
  }

  get list(): ReadonlyArray<ReverseTunnel<I>> {
    return this.all.members.map(({ tunnel }) => tunnel)
  }

  get keys(): ReadonlyArray<string> {
    return [...this.byKey.keys()]
  }

  /** The pool for a key, to ask it something now. */
  private pool(key: string | undefined): Pool<ReverseTunnel<I>> | undefined {
    return key === undefined ? this.all : this.byKey.get(key)
  }

  private poolToKeep(key: string): Pool<ReverseTunnel<I>> {
    const pool = this.byKey.get(key) ?? new Pool<ReverseTunnel<I>>()
    this.byKey.set(key, pool)
    return pool
  }

  private release(key: string | undefined): void {
    if (key !== undefined && this.byKey.get(key)?.unused === true) this.byKey.delete(key)
  }

  ready(key: string | undefined): boolean {
    return this.pool(key)?.ready ?? false
  }

  full(key: string | undefined): boolean {
    return this.pool(key)?.full ?? false
  }

  pick(
    key: string | undefined,
    policy: Policy<ReverseTunnel<I>>,
    call: CallToPlace
  ): Pooled<ReverseTunnel<I>> | undefined {
    return this.pool(key)?.pick(policy, call)
  }

  /** Places a call as soon as a tunnel can take it. Gives how to stop waiting. */
  wait(key: string | undefined, waiter: Waiter<ReverseTunnel<I>>): () => void {
    const pool = key === undefined ? this.all : this.poolToKeep(key)
    const forget = pool.wait(waiter)
    this.release(key)
    return () => {
      forget()
      this.release(key)
    }
  }

  /** The next tunnel, once there is one. */
  await(key: string | undefined): Effect.Effect<ReverseTunnel<I>> {
    return Effect.callback<ReverseTunnel<I>>((resume) => {
      const forget = this.wait(key, {
        policy: "roundRobin",
        call: noCall,
        place: ({ tunnel }) => resume(Effect.succeed(tunnel)),
        fail: (error) => resume(Effect.die(error))
      })
      return Effect.sync(forget)
    })
  }

  add(member: Pooled<ReverseTunnel<I>>): void {
    this.all.add(member)
    this.poolToKeep(member.tunnel.key).add(member)
    member.engine.onFree = () => this.freed(member.tunnel.key)
  }

  remove(member: Pooled<ReverseTunnel<I>>): void {
    const { key } = member.tunnel
    member.engine.onFree = undefined
    this.all.remove(member)
    this.byKey.get(key)?.remove(member)
    this.release(key)
  }

  /** A stream of one of the key's tunnels has ended. */
  private freed(key: string): void {
    this.byKey.get(key)?.notify()
    this.all.notify()
    this.release(key)
  }

  /** Tells of a change, and resumes who waits, in this turn: call it once everything else about the change is done. */
  notify(_tag: ReverseChange<I>["_tag"], tunnel: ReverseTunnel<I>): void {
    PubSub.publishUnsafe(this.changes, { _tag, sequence: ++this.sequence, key: tunnel.key, tunnel })
    this.freed(tunnel.key)
    for (const watcher of [...this.watchers]) watcher()
  }

  /** Completes when a tunnel came, drains or went. */
  readonly changed: Effect.Effect<void> = Effect.callback<void>((resume) => {
    const watcher = () => {
      this.watchers.delete(watcher)
      resume(Effect.void)
    }
    this.watchers.add(watcher)
    return Effect.sync(() => this.watchers.delete(watcher))
  })
}

/** A tunnel itself is asked for. */
export const noCall: CallToPlace = { method: "", host: "" }
