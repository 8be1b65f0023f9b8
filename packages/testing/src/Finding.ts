/**
 * What can be broken after a run.
 *
 * | kind | what it means |
 * | --- | --- |
 * | `NotTerminated` | the run did not end: nothing was runnable and nothing slept, or it went on for too long |
 * | `NotReleased` | a resource was acquired and not released |
 * | `ReleasedTwice` | a resource was released more often than acquired |
 * | `PermitLost` | fewer (or more) permits than before the run |
 * | `FiberLeft` | a fiber was still alive when everything that could own it was closed |
 * | `UsedAfterEnd` | a resource or context was used after its end |
 * | `WrongAnswer` | the normal run afterwards gave another answer |
 * | `Defect` | the run ended with a defect that it does not have without the cancel |
 * | `Invariant` | a probe of the program's own said no |
 *
 * @stability unstable
 * @since 0.1.0
 */
export type FindingKind =
  | "NotTerminated"
  | "NotReleased"
  | "ReleasedTwice"
  | "PermitLost"
  | "FiberLeft"
  | "UsedAfterEnd"
  | "WrongAnswer"
  | "Defect"
  | "Invariant"

/**
 * Where a fiber stood, as well as it can be known.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Position {
  /** `#1` is the root; the others follow in the order of their creation. */
  readonly fiber: string
  /** The primitive operation, in Effect's own words: `Sync`, `Iterator`, `OnSuccess`, `Async`. */
  readonly operation: string
  /** The function of that operation, shortened, when it is code of the program. */
  readonly code: string | undefined
  /** `file:line:column` of the innermost code of the program that the fiber was in. */
  readonly source: string | undefined
  /** The same for everything that waited for it, innermost first: a stack trace of the fiber. */
  readonly trace: ReadonlyArray<string>
  /** The `Effect.fn` frames, innermost first. */
  readonly calls: ReadonlyArray<string>
  readonly span: string | undefined
  /** True inside an uninterruptible region. */
  readonly masked: boolean
  /** Where the fiber was created. */
  readonly forkedAt: string | undefined
}

/**
 * One thing that one run broke.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Finding {
  readonly kind: FindingKind
  /** The probe that said so, for those that come from one. */
  readonly probe: string | undefined
  /** One sentence. */
  readonly message: string
  /** The step at which the cancel was sent, from 1 on; 0 for a run without a cancel. */
  readonly step: number
  /** How many steps after the first cancel the second one was sent. */
  readonly second: number | undefined
  /** Who was cancelled, and how often; over a connection, how the client left. */
  readonly mode:
    | "none"
    | "root"
    | "any"
    | "twice"
    | "finalizers"
    | "schedule"
    | "reset"
    | "abort"
    | "halfClose"
    | "response"
    | "cancel"
    | "disconnect"
  /** Whether the state was made for this run or kept over the runs. */
  readonly state: "fresh" | "kept"
  /** Where the fiber stood that was at the step of the (last) cancel. */
  readonly position: Position | undefined
  /** Where the fibers stand that did not end, for `NotTerminated` and `FiberLeft`. */
  readonly waiting: ReadonlyArray<Position>
}
