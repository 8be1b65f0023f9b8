import type { CancelReason } from "@curfew/reason"
import { CancelCell, type CellKind } from "@curfew/reason/CancelCell"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { nowOf } from "./Instant.ts"
import { renderTree } from "./internal/renderTree.ts"
import { type StuckRecord, stuck } from "./Stuck.ts"

/**
 * What a live thing does: it runs; it takes no new work and runs to its end (`draining`); it was signalled and
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
  /** What an orderly end waits for, by name: tasks and what cleans up; neither daemons nor what is stuck. */
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
export const inspect: Effect.Effect<LiveTree> = /* @__PURE__ */ Effect.flatMap(stuck, (records) =>
  Effect.map(Clock.Clock, (clock) => {
    const unawaited = new Set<LiveNode>()
    const roots = snapshot(nowOf(clock), unawaited)
    return { roots, stuck: records, waitingFor: waitingFor(roots, unawaited) }
  })
)

interface Draft extends LiveNode {
  readonly children: Array<LiveNode>
}

const snapshot = (now: number, unawaited: Set<LiveNode>): ReadonlyArray<LiveNode> => {
  const drafts = new Map<CancelCell, Draft>()
  for (const cell of CancelCell.roots) drafts.set(cell, toNode(cell, now))
  // A map is walked in the order of insertion, what is added meanwhile included: breadth first, without recursion.
  for (const [cell, draft] of drafts) {
    if (cell.stuck || cell.daemon) unawaited.add(draft)
    for (const child of cell.children) {
      const node = toNode(child, now)
      drafts.set(child, node)
      draft.children.push(node)
    }
  }
  const roots: Array<LiveNode> = []
  for (const cell of CancelCell.roots) {
    const node = drafts.get(cell) as Draft
    // What a shield or a mask holds apart is shown where it was started; what was left behind stands by itself.
    const beside = cell.stuck || cell.outer === undefined ? undefined : drafts.get(cell.outer)
    if (beside === undefined) roots.push(node)
    else beside.children.push(node)
  }
  return roots
}

const toNode = (cell: CancelCell, now: number): Draft => ({
  kind: cell.kind,
  name: cell.name,
  state: stateOf(cell),
  age: Duration.millis(cell.age),
  deadline: cell.deadline === Number.POSITIVE_INFINITY ? undefined : Duration.millis(cell.deadline - now),
  reason: cell.reason,
  children: []
})

const stateOf = (cell: CancelCell): LiveState => {
  if (cell.stuck) return "stuck"
  if (cell.reason !== undefined || cell.kind === "cleanup") return "cleaning up"
  return cell.draining ? "draining" : "running"
}

/**
 * The names on which an orderly end waits: tasks, wherever they hang, and clean-up. Not on daemons and what is stuck,
 * nor on what hangs below them.
 */
const waitingFor = (
  roots: ReadonlyArray<LiveNode>,
  unawaited: ReadonlySet<LiveNode>
): ReadonlyArray<string> => {
  const names: Array<string> = []
  const open = [...roots].reverse()
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    if (unawaited.has(node)) continue
    if (node.kind === "task" || node.kind === "cleanup") names.push(node.name ?? node.kind)
    for (let i = node.children.length - 1; i >= 0; i--) open.push(node.children[i] as LiveNode)
  }
  return names
}

/**
 * The tree as text that reads at a glance: what, in which state, how old, why.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { formatTree, inspect } from "@curfew/scope"
 *
 * Effect.runSync(Effect.map(inspect, formatTree)) // => "nothing is alive"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const formatTree = (tree: LiveTree): string => renderTree(tree)

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

const kinds: ReadonlyArray<CellKind> = ["scope", "tasks", "task", "shield", "owner", "shared", "cleanup"]
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
