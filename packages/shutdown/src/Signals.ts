/**
 * Where the signals come from that begin a shutdown and hurry it on. The process's own are in `@curfew/shutdown/Node`;
 * a test has its own.
 *
 * **Example**
 *
 * ```ts
 * import type { Signals } from "@curfew/shutdown"
 *
 * const listeners = new Set<(signal: string) => void>()
 * const signals: Signals = {
 *   subscribe: (listener) => {
 *     listeners.add(listener)
 *     return () => listeners.delete(listener)
 *   }
 * }
 * const unsubscribe = signals.subscribe(() => {})
 * unsubscribe()
 * listeners.size // => 0
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Signals {
  /** Calls back for each signal, with its name. Returns the removal. */
  readonly subscribe: (listener: (signal: string) => void) => () => unknown
}
