/**
 * Forking a child under a cell and waiting for it, for those who write primitives of their own. What starts here has
 * to be awaited, handed to a task scope, or entered as stuck by whoever starts it.
 *
 * @stability internal
 * @since 0.1.0
 */
export { awaitCancelled } from "./internal/awaitChild.ts"
export {
  awaitEnd,
  forkUnsafe,
  keptCell,
  resumeWith,
  startAndAwait,
  startUnder,
  startUnsafe,
  startUnshown
} from "./internal/child.ts"
export { armUnsafe } from "./internal/timer.ts"
