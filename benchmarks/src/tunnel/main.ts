/** The tunnel beside direct grpc-js and beside the Go library, with every end in a process of its own. */
import type { Options } from "../harness/options.ts"
import type { Row } from "../harness/row.ts"
import { besideRows } from "./beside.ts"
import { closedRows } from "./closed.ts"
import { goRows } from "./go.ts"
import { openRows } from "./open.ts"
import { releasedRows } from "./released.ts"
import { longLinkRows, transferRows } from "./streams.ts"

const kinds = [closedRows, goRows, openRows, transferRows, longLinkRows, besideRows, releasedRows]

export const run = async (options: Options): Promise<ReadonlyArray<Row>> => {
  const rows: Array<Row> = []
  const all = options.quick ? { rounds: 1, seconds: 0.3, calls: 200, ...options } : options
  for (const kind of kinds) rows.push(...(await kind(all)))
  return rows
}
