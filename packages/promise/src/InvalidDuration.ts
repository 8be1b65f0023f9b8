import * as Data from "effect/Data"

/**
 * The error of an option that is no length of time: `NaN`, or words that cannot be read. A negative one is a time that has
 * passed, and `Infinity` never comes.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class InvalidDuration extends /* @__PURE__ */ Data.TaggedError("InvalidDuration")<{
  readonly option: string
  readonly value: unknown
}> {
  override get message(): string {
    return `The ${this.option} is ${String(this.value)}; give milliseconds, or words such as "5 seconds".`
  }
}
