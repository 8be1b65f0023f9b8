import { siblingsOf } from "./internal/errors.ts"

/**
 * The failures of siblings that came after the one that was thrown. The error itself is not touched, and not wrapped.
 *
 * **Gotchas**
 *
 * Only an object can carry them: after `throw "text"` the list is empty. Each sibling's failure reaches `onUnhandled`
 * besides.
 *
 * **Example**
 *
 * ```ts
 * import { siblingFailures } from "@curfew/promise"
 *
 * siblingFailures(new Error("alone")) // => []
 * ```
 *
 * @see gather and withCancelScope, which attach them.
 * @stability unstable
 * @since 0.1.0
 */
export const siblingFailures = (error: unknown): ReadonlyArray<unknown> => siblingsOf(error)
