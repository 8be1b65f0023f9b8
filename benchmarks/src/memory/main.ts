/** What is held: by a stream that is idle, by calls that were cancelled, and by many of a thing at once. */
import type { Run } from "../harness/options.ts"
import { cancelledRows } from "./cancelled.ts"
import { growthRows } from "./growth.ts"
import { idleRows } from "./idle.ts"

export const run: Run = async (options) => [
  ...(await idleRows(options)),
  ...(await growthRows(options)),
  ...(await cancelledRows(options))
]
