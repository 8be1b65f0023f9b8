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
  /** The least that gives the row's guarantee in Effect alone: measured in the same rounds, and told where a row is missed. */
  readonly least?: Contest
}

/** All that a row measures: ours, its peers, and the least last. */
export const contestsOf = ({ least, ours, peers }: Primitive): ReadonlyArray<Contest> =>
  least === undefined ? [ours, ...peers] : [ours, ...peers, least]

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
