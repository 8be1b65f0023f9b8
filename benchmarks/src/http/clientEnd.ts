/** The clients, in a process of their own. */
import { answer } from "../harness/child.ts"
import { type Load, load } from "./load.ts"

answer({ load: (given: Load) => load(given) })
