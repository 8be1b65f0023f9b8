/** What the campaign and the process that runs the tests say to each other. */

export interface Job {
  /** The sources that differ from the tree: the mutated file, or every instrumented one. */
  readonly files: ReadonlyArray<{ readonly path: string; readonly text: string; readonly original: string }>
  /** In the order in which they run; the first failure ends the job. */
  readonly tests: ReadonlyArray<TestFile>
  /** Where the tests write what they come by. */
  readonly reachedFile?: string
}

export interface TestFile {
  readonly path: string
  /** How long it may be silent between two outcomes before it counts as hanging, in milliseconds. */
  readonly patience: number
}

export interface Answer {
  readonly verdict: "passed" | "failed" | "timed out"
  /** The test file that failed or hung. */
  readonly file?: string | undefined
  readonly test?: string | undefined
  readonly message?: string | undefined
  /** The longest time between two outcomes, in milliseconds. */
  readonly slowest: number
}

export type Said = { readonly _tag: "Ready" } | { readonly _tag: "Answer"; readonly answer: Answer }
