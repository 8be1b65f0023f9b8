import type { CancelReason } from "@curfew/reason"
import {
  ageOf,
  type Cell,
  type CellKind,
  childrenOf,
  daemon,
  deadlineOf,
  draining,
  has,
  rootsUnsafe,
  stuck
} from "@curfew/reason/CancelCell"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { nowOf } from "./Instant.ts"
import { type JsonTree, treeToJson } from "./internal/jsonTree.ts"
import { renderTree } from "./internal/renderTree.ts"
import { type StuckRecord, stuckUnsafe } from "./Stuck.ts"

/**
 * What a live thing does: it runs; its end is waited for (`draining`): by a close or a shutdown; it was signalled and
 * cleans up; or it was left behind after its clean-up budget (`stuck`).
 *
 * @stability unstable
 * @since 0.1.0
 */
export type LiveState = "running" | "draining" | "cleaning up" | "stuck"

/**
 * One live thing, with what hangs below it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface LiveNode {
  readonly kind: CellKind
  readonly name: string | undefined
  readonly state: LiveState
  /** How long it has been alive. */
  readonly age: Duration.Duration
  /** How long ago its cancel reached it, or its clean-up began. */
  readonly cleaningUp: Duration.Duration | undefined
  /** It does not keep its task scope open: nobody waits for it before it is cancelled. */
  readonly daemon: boolean
  /** What is left until its own deadline, if it has one; negative once that has passed. */
  readonly deadline: Duration.Duration | undefined
  readonly reason: CancelReason | undefined
  readonly children: ReadonlyArray<LiveNode>
}

/**
 * Everything that is alive and was started through Curfew, at one moment.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface LiveTree {
  readonly roots: ReadonlyArray<LiveNode>
  /** Clean-up and tasks that overran their budget, with where they come from. */
  readonly stuck: ReadonlyArray<StuckRecord>
  /**
   * What an orderly end waits for, by name: tasks, calls, shared runs and shields, wherever they hang, and what cleans
   * up. Neither daemons, which are cancelled when the others have ended, nor what is stuck already.
   */
  readonly waitingFor: ReadonlyArray<string>
}

/**
 * Shows what is alive: scopes, tasks, shields and clean-up, under whom, how long, with which deadline and reason.
 *
 * **Guarantees**
 *
 * - **Exactly once (L47)**: whatever is alive and was started through Curfew stands in the tree once; what has ended
 *   does not.
 *
 * **Gotchas**
 *
 * Fibers that were forked by Effect alone are not in it: nobody told Curfew about them.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelScope, inspect } from "@curfew/scope"
 *
 * const program = CancelScope.run(() => inspect, { name: "lookup" })
 * const names = Effect.map(program, (outcome) =>
 *   outcome._tag === "Done" ? outcome.value.roots.map((node) => node.name) : []
 * )
 * Effect.runSync(names) // => ["lookup"]
 * ```
 *
 * @see formatTree to print it.
 * @stability unstable
 * @since 0.1.0
 */
export const inspect: Effect.Effect<LiveTree> = /* @__PURE__ */ Effect.map(Clock.Clock, (clock) =>
  inspectUnsafe(clock)
)

/**
 * The same from a callback: a signal's, for instance. Deadlines are told by the given clock.
 *
 * @stability internal
 * @since 0.1.0
 */
export const inspectUnsafe = (clock: Clock.Clock): LiveTree => {
  const roots = snapshot(nowOf(clock))
  return { roots, stuck: stuckUnsafe(), waitingFor: waitingFor(roots) }
}

interface Draft extends LiveNode {
  readonly children: Array<LiveNode>
}

const snapshot = (now: number): ReadonlyArray<LiveNode> => {
  const drafts = new Map<Cell, Draft>()
  for (const cell of rootsUnsafe()) drafts.set(cell, toNode(cell, now))
  // A map is walked in the order of insertion, what is added meanwhile included: breadth first, without recursion.
  for (const [cell, draft] of drafts) {
    for (const child of childrenOf(cell)) {
      const node = toNode(child, now)
      drafts.set(child, node)
      draft.children.push(node)
    }
  }
  const roots: Array<LiveNode> = []
  for (const cell of rootsUnsafe()) {
    const node = drafts.get(cell) as Draft
    // What a shield or a mask holds apart is shown where it was started; what was left behind stands by itself.
    const beside = has(cell, stuck) || cell.outer === undefined ? undefined : drafts.get(cell.outer)
    if (beside === undefined) roots.push(node)
    else beside.children.push(node)
  }
  return roots
}

const toNode = (cell: Cell, now: number): Draft => ({
  kind: cell.kind,
  name: cell.name,
  state: stateOf(cell),
  age: Duration.millis(ageOf(cell)),
  cleaningUp: cell.cleaningFor === undefined ? undefined : Duration.millis(cell.cleaningFor),
  daemon: has(cell, daemon),
  deadline: leftUntil(deadlineOf(cell), now),
  reason: cell.reason,
  children: []
})

const leftUntil = (deadline: number | undefined, now: number): Duration.Duration | undefined =>
  deadline === undefined || deadline === Number.POSITIVE_INFINITY
    ? undefined
    : Duration.millis(deadline - now)

const stateOf = (cell: Cell): LiveState => {
  if (has(cell, stuck)) return "stuck"
  if (cell.reason !== undefined || cell.kind === "cleanup") return "cleaning up"
  return has(cell, draining) ? "draining" : "running"
}

const awaited: ReadonlySet<CellKind> = /* @__PURE__ */ new Set<CellKind>([
  "task",
  "call",
  "shared",
  "shield",
  "cleanup"
])

/**
 * The names on which an orderly end waits. Not on daemons and what is stuck, nor on what hangs below them; but on a
 * shield, which is shown where it was started and hangs below its owner.
 */
const waitingFor = (roots: ReadonlyArray<LiveNode>): ReadonlyArray<string> => {
  const names: Array<string> = []
  const open = roots.map((node) => ({ node, apart: false })).reverse()
  for (let step = open.pop(); step !== undefined; step = open.pop()) {
    const { node } = step
    const apart = node.daemon || node.state === "stuck" || (step.apart && node.kind !== "shield")
    if (!apart && awaited.has(node.kind)) names.push(node.name ?? node.kind)
    for (let i = node.children.length - 1; i >= 0; i--)
      open.push({ node: node.children[i] as LiveNode, apart })
  }
  return names
}

/**
 * The tree as text that reads at a glance: what, in which state and since when, how old, why, with which deadline; then
 * where what is stuck comes from, how much is alive, and what a shutdown waits for.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { formatTree, inspect } from "@curfew/scope"
 *
 * Effect.runSync(Effect.map(inspect, (tree) => formatTree(tree))) // => "nothing is alive"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const formatTree = (tree: LiveTree, options?: FormatOptions): string =>
  renderTree(tree, options?.colour === true)

/**
 * How {@link formatTree} prints.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface FormatOptions {
  /** Colours for a terminal. Default: none. */
  readonly colour?: boolean | undefined
}

/**
 * The tree as plain values for `JSON.stringify`: a flat list, in the order of the text, in which each thing names the
 * one that it hangs below. Flat, because a tree of ten thousand levels is too deep for a JSON parser.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelScope, inspect, toJson } from "@curfew/scope"
 *
 * const program = CancelScope.run(() => CancelScope.run(() => Effect.map(inspect, toJson), { name: "inner" }))
 * const inner = Effect.map(program, (outer) =>
 *   outer._tag === "Done" && outer.value._tag === "Done" ? outer.value.value.alive[1] : undefined
 * )
 * Effect.runSync(Effect.map(inner, (node) => [node?.below, node?.kind, node?.name])) // => [0, "scope", "inner"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const toJson = (tree: LiveTree): JsonTree => treeToJson(tree)

export type { JsonNode, JsonTree } from "./internal/jsonTree.ts"

/**
 * How many things are alive, by the attributes `kind` and `state`.
 *
 * @see updateLiveMetrics to set it before it is read.
 * @stability unstable
 * @since 0.1.0
 */
export const liveGauge: Metric.Gauge<number> = /* @__PURE__ */ Metric.gauge("curfew_live", {
  description: "Scopes, tasks, shields and clean-up that are alive now."
})

const kinds: ReadonlyArray<CellKind> = [
  "scope",
  "tasks",
  "task",
  "call",
  "shield",
  "owner",
  "shared",
  "cleanup"
]
const states: ReadonlyArray<LiveState> = ["running", "draining", "cleaning up", "stuck"]

/**
 * Counts what is alive into {@link liveGauge}. To be run when the metrics are collected: the tree is not counted
 * while nobody looks.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const updateLiveMetrics: Effect.Effect<void> = /* @__PURE__ */ Effect.flatMap(inspect, (tree) => {
  const counts = new Map<string, number>()
  const open = [...tree.roots]
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    const key = `${node.kind}/${node.state}`
    counts.set(key, (counts.get(key) ?? 0) + 1)
    for (const child of node.children) open.push(child)
  }
  return Effect.forEach(
    kinds.flatMap((kind) => states.map((state) => ({ kind, state }))),
    ({ kind, state }) =>
      Metric.update(Metric.withAttributes(liveGauge, { kind, state }), counts.get(`${kind}/${state}`) ?? 0),
    { discard: true }
  )
})
