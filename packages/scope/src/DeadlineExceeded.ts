import * as Data from "effect/Data"

/**
 * The error of {@link failAfter}: its own time limit passed, not another's.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class DeadlineExceeded extends /* @__PURE__ */ Data.TaggedError("DeadlineExceeded")<{
  /** Wall clock, milliseconds since 1970. */
  readonly at: number
  /** The name that was given to the limit. */
  readonly scope: string | undefined
}> {
  override get message(): string {
    // An infinite instant has no date.
    const date = new Date(this.at)
    const when = Number.isNaN(date.getTime()) ? "" : ` (${date.toISOString()})`
    return `The deadline${this.scope === undefined ? "" : ` of ${this.scope}`} has passed${when}.`
  }
}
