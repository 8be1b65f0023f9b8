import type { Batch } from "../primitives/batches.ts"
import { groups } from "../primitives/groups.ts"
import type { Contest } from "../primitives/primitive.ts"
import { direct, overGrpc, tunnelled } from "./unary.ts"

/** Two that do the same; what is compared is the processor that each takes. */
export interface GateRow {
  readonly row: string
  readonly peerName: string
  readonly ours: () => Batch | Promise<Batch>
  readonly peer: () => Batch | Promise<Batch>
}

/** A row of the primitives, beside raw Effect. */
const primitive = (row: string, group: string, name: string) => async (): Promise<GateRow> => {
  const found = (await (groups[group] as (typeof groups)[string])()).find((one) => one.row === name)
  if (found === undefined)
    throw new Error(`There is no row "${name}" among the primitives; give ${row} one of theirs.`)
  const raw = found.peers[0] as Contest
  return { row, peerName: raw.name, ours: found.ours.batch, peer: raw.batch }
}

const unary = (row: string, ours: () => Promise<Batch>) => async (): Promise<GateRow> => ({
  row,
  peerName: "grpc-js",
  ours,
  peer: direct
})

/** Few, and such that whatever most programs go through is in one of them. */
export const gateRows: ReadonlyArray<() => Promise<GateRow>> = [
  primitive("spawn", "scope", "scope: TaskScope spawn and join, ends at once"),
  primitive("guard", "guard", "guard: guard"),
  primitive("gather", "gather", "gather: 10 items, ends at once"),
  primitive("shared", "singleflight", "singleflight: Shared.get, a new run, ends at once"),
  unary("gRPC unary", overGrpc),
  unary("unary through a tunnel", tunnelled)
]
