/** The tunnel beside direct grpc-js and beside the Go library, with every end in a process of its own. */
import type { Options } from "../harness/options.ts"
import type { Row } from "../harness/row.ts"
import { closedRows } from "./closed.ts"

export const run = async (options: Options): Promise<ReadonlyArray<Row>> => [...(await closedRows(options))]
