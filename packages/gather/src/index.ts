/**
 * Side by side, with the first failure unwrapped.
 *
 * @since 0.1.0
 */
export { ChildCancelled } from "./ChildCancelled.ts"
export type {
  ErrorOf,
  Gatherable,
  GatherableLike,
  Gathered,
  Item,
  NoItem,
  ServicesOf
} from "./Gatherable.ts"
export { gather } from "./gather.ts"
