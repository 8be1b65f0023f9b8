/**
 * Cancelling a program at every step, exploring its schedules, and gates for what it leaves behind.
 *
 * @since 0.1.0
 */
export { countSteps } from "./countSteps.ts"
export {
  type ConformanceCase,
  type Departure,
  type DisconnectCall,
  type DisconnectDriver,
  type DisconnectEndpoint,
  type Meeting,
  NotConformant,
  type Policy
} from "./Disconnects.ts"
export { disconnectMatrix } from "./disconnectMatrix.ts"
export {
  expectSwept,
  NotClean,
  NotSwept,
  type SweepableRoute,
  sweptReports,
  unclean,
  unswept
} from "./expectSwept.ts"
export {
  type ExploreOptions,
  type ExploreReport,
  explore,
  type FailingSchedule,
  formatExplore,
  replay
} from "./explore.ts"
export type { Finding, FindingKind, Position } from "./Finding.ts"
export * as JumpClock from "./JumpClock.ts"
export * as LeakGate from "./LeakGate.ts"
export * as Probe from "./Probe.ts"
export { type Subject, type Sweepable, toSubject } from "./Subject.ts"
export { formatSweep, type SweepReport } from "./SweepReport.ts"
export { type SweepOptions, type SweepProgress, sweep } from "./sweep.ts"
export { type Timeline, type TimelineEvent, timeline } from "./Timeline.ts"
