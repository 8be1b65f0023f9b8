import type { Batch } from "./batches.ts"

export interface Contest {
  readonly name: string
  /** Made in the process that measures it. */
  readonly batch: () => Batch | Promise<Batch>
  /** What the ratio has to reach; default: {@link rawTarget} for the first peer, 1 for the others. */
  readonly target?: number
}

export interface Primitive {
  readonly row: string
  readonly ours: Contest
  /** The shortest raw Effect with the same result first. */
  readonly peers: ReadonlyArray<Contest>
  /** What one operation of a batch is; default: a call. */
  readonly per?: string
  /** Operations of a batch, where it is a scene with a size of its own; default: as many as fill a moment. */
  readonly times?: number
  readonly note?: string
  /**
   * The least that gives what the primitive cannot do without and a peer does not give. It is measured in the same rounds, and
   * stands beside the rows that are not reached.
   */
  readonly limit?: Contest
}

/** Who is measured, ours first and the limit last. */
export const contestsOf = ({ limit, ours, peers }: Primitive): ReadonlyArray<Contest> =>
  limit === undefined ? [ours, ...peers] : [ours, ...peers, limit]

/** At most twice the time of the raw Effect. */
const rawTarget = 0.5

export const ours = (batch: Contest["batch"], name = "Curfew"): Contest => ({ name, batch })
export const raw = (name: string, batch: Contest["batch"], target = rawTarget): Contest => ({
  name: `Effect: ${name}`,
  batch,
  target
})
/** Where Effect has no part in it. */
export const plain = (name: string, batch: Contest["batch"], target = rawTarget): Contest => ({
  name: `plain: ${name}`,
  batch,
  target
})
export const library = (name: string, batch: Contest["batch"], target = 1): Contest => ({
  name,
  batch,
  target
})
/** What is indispensable, written out without Curfew. */
export const least = (name: string, batch: Contest["batch"]): Contest => ({ name, batch })
