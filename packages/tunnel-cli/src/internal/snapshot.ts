/**
 * What `status` shows: one moment of a running command, as plain data.
 *
 * **Invariants**
 * 1. It is JSON, and its shape is versioned; a status of another version says so.
 * 2. The question itself is not in the answer: the work of the admin port is left out of the tree.
 */
import { formatTree, Instant, inspect, type LiveNode, type LiveTree, toJson } from "@curfew/scope"
import { Shutdown } from "@curfew/shutdown"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Desk } from "./desk.ts"

export const version = 1

/** The name of the scope that answers questions. */
export const adminScope = "admin port"

interface TunnelState {
  readonly key: string
  readonly kind: "forward" | "reverse"
  readonly peer: string
  readonly openForMs: number
  readonly streams: number
  readonly opened: number
  readonly cancelled: number
  /** Payload bytes; `null` for a forward tunnel that is called here, which has no figures of its own. */
  readonly sentBytes: number | null
  readonly receivedBytes: number | null
  /** What is here and waits: for its reader, or for the peer's windows. */
  readonly heldBytes: number | null
  /** Streams that wait for the peer's window. */
  readonly stalled: number | null
}

interface CallState {
  readonly method: string
  readonly key: string
  readonly peer: string
  readonly runningForMs: number
  readonly requestBytes: number
  readonly responseBytes: number
}

export interface Snapshot {
  readonly version: typeof version
  readonly role: Desk["role"]
  readonly pid: number
  readonly stage: Shutdown.Stage
  readonly ready: boolean
  readonly upForMs: number
  readonly addresses: Readonly<Record<string, string>>
  readonly tunnels: ReadonlyArray<TunnelState>
  readonly keys: ReadonlyArray<{ readonly key: string; readonly tunnels: number; readonly inFlight: number }>
  readonly calls: {
    readonly started: number
    readonly inFlight: number
    readonly completed: number
    readonly failed: number
    readonly cancelled: number
    readonly refused: number
    readonly cancelledBy: Readonly<Record<string, number>>
    readonly codes: Readonly<Record<string, number>>
    /** The longest first; at most a hundred. */
    readonly longest: ReadonlyArray<CallState>
  }
  readonly bytes: { readonly requests: number; readonly responses: number }
  readonly waitingFor: ReadonlyArray<string>
  readonly tree: ReturnType<typeof toJson>
  /** The same, to be read. */
  readonly treeText: string
}

const withoutAdmin = (nodes: ReadonlyArray<LiveNode>): ReadonlyArray<LiveNode> =>
  nodes
    .filter(({ name }) => name !== adminScope)
    .map((node) => ({ ...node, children: withoutAdmin(node.children) }))

const nameOf = ({ kind, name }: LiveNode): string => name ?? kind

/**
 * What an orderly end waits for: what the program's owner has, which is its calls, the hooks of the shutdown, and whatever
 * cleans up. Tunnels and their plumbing are closed when those have ended.
 */
const awaited = (nodes: ReadonlyArray<LiveNode>): ReadonlyArray<string> =>
  nodes.flatMap((node) =>
    node.kind === "owner" || node.name === "shutdown"
      ? node.children.map(nameOf)
      : [
          ...(node.state === "cleaning up" || node.state === "stuck" ? [nameOf(node)] : []),
          ...awaited(node.children)
        ]
  )

/** The live tree without the work of the admin port. */
const liveTree: Effect.Effect<LiveTree> = Effect.map(inspect, ({ roots, stuck }) => {
  const shown = withoutAdmin(roots)
  return { roots: shown, stuck, waitingFor: awaited(shown) }
})

export const snapshot = (desk: Desk): Effect.Effect<Snapshot> =>
  Effect.gen(function* () {
    const now = Instant.nowOf(yield* Clock.Clock)
    const stage = yield* Shutdown.stage
    const tree = yield* liveTree
    const { calls, totals } = desk
    const since = (at: number): number => Math.max(0, Math.round(now - at))
    const keys = new Map<string, { key: string; tunnels: number; inFlight: number }>()
    for (const { key, streams } of desk.tunnels.values()) {
      if (key === "") continue
      const entry = keys.get(key) ?? { key, tunnels: 0, inFlight: 0 }
      entry.tunnels++
      entry.inFlight += streams
      keys.set(key, entry)
    }
    const cancelled = [...totals.cancelled.values()].reduce((sum, count) => sum + count, 0)
    const stats = yield* Effect.forEach([...desk.tunnels.values()], (tunnel) =>
      Effect.map(tunnel.stats ?? Effect.undefined, (figures) => ({ tunnel, figures }))
    )
    return {
      version,
      role: desk.role,
      pid: process.pid,
      stage,
      ready: stage === "running" && desk.ready(),
      upForMs: since(desk.startedAt),
      addresses: desk.addresses,
      tunnels: stats.map(
        ({ figures, tunnel: { cancelled, key, kind, opened, openedAt, peer, streams } }) => ({
          key,
          kind,
          peer,
          openForMs: since(openedAt),
          streams,
          opened,
          cancelled,
          sentBytes: figures?.sentBytes ?? null,
          receivedBytes: figures?.receivedBytes ?? null,
          heldBytes: figures?.held ?? null,
          stalled: figures?.blocked ?? null
        })
      ),
      keys: [...keys.values()],
      calls: {
        started: totals.started,
        inFlight: calls.size,
        completed: totals.completed,
        failed: totals.failed,
        cancelled,
        refused: totals.refused,
        cancelledBy: Object.fromEntries(totals.cancelled),
        codes: Object.fromEntries(totals.codes),
        // They stand in the order in which they began.
        longest: [...calls].slice(0, 100).map(({ bytes, key, method, peer, startedAt }) => ({
          method,
          key,
          peer,
          runningForMs: since(startedAt),
          requestBytes: bytes.requests,
          responseBytes: bytes.responses
        }))
      },
      bytes: desk.bytes,
      waitingFor: tree.waitingFor,
      tree: toJson(tree),
      treeText: formatTree(tree)
    }
  })
