/**
 * Where the mechanism of an edge is kept, for the adapters.
 *
 * Invariants
 * 1. An edge is known by its own identity: what merely looks like one is refused, with a sentence.
 */
import type { NodeEdge } from "../NodeEdge.ts"
import type { Edge } from "./edge.ts"

const edges = /* @__PURE__ */ new WeakMap<NodeEdge, Edge>()

export const knownAs = <E extends NodeEdge>(edge: E, mechanism: Edge): E => {
  edges.set(edge, mechanism)
  return edge
}

export const mechanismOf = (edge: NodeEdge): Edge => {
  const found = edges.get(edge)
  if (found !== undefined) return found
  throw new TypeError("The edge is none of this package; make it with NodeEdge.make, nodeEdge or serve.")
}
