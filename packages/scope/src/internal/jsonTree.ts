/**
 * The live tree as plain values.
 *
 * Invariants
 * 1. Flat and without recursion: a node is told before what hangs below it, which names it by its place in the list.
 * 2. Times are milliseconds; what is not there is left out.
 */
import { describe } from "@curfew/reason"
import * as Duration from "effect/Duration"
import type { LiveNode, LiveTree } from "../inspect.ts"

/** One live thing. */
export interface JsonNode {
  /** The place in the list of what it hangs below; left out at the top. */
  readonly below?: number
  readonly kind: LiveNode["kind"]
  readonly name?: string
  readonly state: LiveNode["state"]
  readonly daemon?: true
  readonly ageMs: number
  readonly cleaningUpMs?: number
  /** What is left of it; negative once it has passed. */
  readonly deadlineMs?: number
  /** The tag. */
  readonly reason?: string
  readonly message?: string
}

/** Everything that is alive. */
export interface JsonTree {
  readonly alive: ReadonlyArray<JsonNode>
  readonly stuck: ReadonlyArray<{
    readonly kind: string
    readonly name?: string
    /** The tag. */
    readonly reason?: string
    readonly span?: string
    /** Wall clock, milliseconds since 1970. */
    readonly startedAt: number
    readonly source?: string
  }>
  readonly waitingFor: ReadonlyArray<string>
}

export const treeToJson = (tree: LiveTree): JsonTree => {
  const alive: Array<JsonNode> = []
  const open: Array<readonly [node: LiveNode, below: number | undefined]> = []
  const push = (nodes: ReadonlyArray<LiveNode>, below: number | undefined): void => {
    for (let i = nodes.length - 1; i >= 0; i--) open.push([nodes[i] as LiveNode, below])
  }
  push(tree.roots, undefined)
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [node, below] = next
    push(node.children, alive.push(toNode(node, below)) - 1)
  }
  return {
    alive,
    stuck: tree.stuck.map(({ kind, name, reason, source, span, startedAt }) => ({
      kind,
      ...(name === undefined ? {} : { name }),
      ...(reason === undefined ? {} : { reason: reason._tag }),
      ...(span === undefined ? {} : { span }),
      startedAt,
      ...(source === undefined ? {} : { source })
    })),
    waitingFor: tree.waitingFor
  }
}

const toNode = (node: LiveNode, below: number | undefined): JsonNode => ({
  ...(below === undefined ? {} : { below }),
  kind: node.kind,
  ...(node.name === undefined ? {} : { name: node.name }),
  state: node.state,
  ...(node.daemon ? { daemon: true as const } : {}),
  ageMs: millis(node.age),
  ...(node.cleaningUp === undefined ? {} : { cleaningUpMs: millis(node.cleaningUp) }),
  ...(node.deadline === undefined ? {} : { deadlineMs: millis(node.deadline) }),
  ...(node.reason === undefined ? {} : { reason: node.reason._tag, message: describe(node.reason) })
})

const millis = (duration: Duration.Duration): number => Math.round(Duration.toMillis(duration) * 10) / 10
