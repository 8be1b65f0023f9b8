/**
 * Staged shutdown: stop, drain, cancel, report, exit, within a bound.
 *
 * @since 0.1.0
 */
export * as Report from "./Report.ts"
export * as Shutdown from "./Shutdown.ts"
export type { Signals } from "./Signals.ts"
