/**
 * The reverse tunnels that are ready, in all and by key.
 *
 * **Invariants**
 * 1. A tunnel is listed from before `onReverseOpen` is called until before `onReverseClose` is; who waits for a
 *    tunnel is resumed after the callback.
 * 2. A pick takes turns, and skips tunnels that drain or have begun to close.
 * 3. A key without tunnels and without waiters occupies no memory.
 */
import * as Effect from "effect/Effect"
import type { TunnelChannel } from "../TunnelChannel.ts"
import type { ClientEngine } from "./clientEngine.ts"

export interface Listed {
  readonly key: string
  readonly channel: TunnelChannel
  readonly engine: ClientEngine
}

/** Tunnels that take turns. */
class Pool {
  readonly tunnels: Array<Listed> = []
  private turn = 0

  pick(): Listed | undefined {
    for (let tries = this.tunnels.length; tries > 0; tries--) {
      const tunnel = this.tunnels[this.turn++ % this.tunnels.length]
      if (tunnel?.engine.available === true) return tunnel
    }
    return undefined
  }

  remove(tunnel: Listed): void {
    const index = this.tunnels.indexOf(tunnel)
    if (index >= 0) this.tunnels.splice(index, 1)
  }
}

export class ReverseRegistry {
  private readonly all = new Pool()
  private readonly byKey = new Map<string, Pool>()
  private readonly watchers = new Set<() => void>()

  get list(): ReadonlyArray<TunnelChannel> {
    return this.all.tunnels.map((tunnel) => tunnel.channel)
  }

  pick(key: string | undefined): Listed | undefined {
    return (key === undefined ? this.all : this.byKey.get(key))?.pick()
  }

  add(tunnel: Listed): void {
    this.all.tunnels.push(tunnel)
    const pool = this.byKey.get(tunnel.key) ?? new Pool()
    pool.tunnels.push(tunnel)
    this.byKey.set(tunnel.key, pool)
  }

  remove(tunnel: Listed): void {
    this.all.remove(tunnel)
    const pool = this.byKey.get(tunnel.key)
    pool?.remove(tunnel)
    if (pool?.tunnels.length === 0) this.byKey.delete(tunnel.key)
  }

  /** Resumes who waits, in this turn: call it once everything else about a change is done. */
  notify(): void {
    for (const watcher of [...this.watchers]) watcher()
  }

  /** Completes when a tunnel came or went. */
  readonly changed: Effect.Effect<void> = Effect.callback<void>((resume) => {
    const watcher = () => {
      this.watchers.delete(watcher)
      resume(Effect.void)
    }
    this.watchers.add(watcher)
    return Effect.sync(() => this.watchers.delete(watcher))
  })

  /** Waits for a tunnel. */
  await(key: string | undefined): Effect.Effect<TunnelChannel> {
    return Effect.suspend(() => {
      const tunnel = this.pick(key)
      return tunnel === undefined
        ? Effect.andThen(this.changed, this.await(key))
        : Effect.succeed(tunnel.channel)
    })
  }
}
