import type * as Exit from "effect/Exit"
import type * as Metric from "effect/Metric"

/** What is alive in a process, and what has happened in it that should not. Every number is counted as it happens. */
export interface Counts {
  /** Fibers that have started and not ended. */
  readonly fibers: number
  /** gRPC calls, tunnel streams and tunnels that were opened and not closed. */
  readonly openStreams: number
  /** Listeners on calls and signals that were added and not removed. */
  readonly listeners: number
  /** Timers and immediates that keep the event loop alive. */
  readonly timers: number
  /** Ports that are listened on. */
  readonly ports: number
  /** Open TCP connections. */
  readonly sockets: number
  /** Finalizers and tasks that outlived their clean-up budget. */
  readonly stuck: number
  /** Rejections and exceptions that nobody handled. */
  readonly unhandled: number
  /** Log entries of level error and above. */
  readonly errorLogs: number
  /** Writes of a handler after its caller had left. */
  readonly lateWrites: number
}

/** What a process counts. One per process; only `runProcess` makes one. */
export class Meter {
  fibers = 0
  openStreams = 0
  listeners = 0
  unhandled = 0
  errorLogs = 0
  lateWrites = 0
  /** Events with a name that the report compares with the plan, such as the handlers that a client's leaving ended. */
  readonly tally: Record<string, number> = {}

  /** Effect tells of every fiber that starts and ends below a context that holds this service. */
  readonly fiberMetrics: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => {
      this.fibers++
    },
    recordFiberEnd: (_context, _exit: Exit.Exit<unknown, unknown>) => {
      this.fibers--
    }
  }

  count(name: string): void {
    this.tally[name] = (this.tally[name] ?? 0) + 1
  }

  read(stuck: number): Counts {
    const resources = process.getActiveResourcesInfo()
    const active = (...names: ReadonlyArray<string>) =>
      resources.filter((name) => names.includes(name)).length
    return {
      fibers: this.fibers,
      openStreams: this.openStreams,
      listeners: this.listeners,
      timers: active("Timeout", "Immediate"),
      ports: active("TCPServerWrap"),
      sockets: active("TCPSocketWrap"),
      stuck,
      unhandled: this.unhandled,
      errorLogs: this.errorLogs,
      lateWrites: this.lateWrites
    }
  }
}
