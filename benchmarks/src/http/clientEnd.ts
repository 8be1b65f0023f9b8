/** The clients, in a process of their own. */
import { answer } from "../harness/child.ts"
import { dial, type Load, leave, load, type Target } from "./load.ts"

answer({
  dial: (target: Target) => dial(target),
  load: (given: Load) => load(given),
  leave: (target: Target) => leave(target)
})
