import * as Data from "effect/Data"

/**
 * The error of a lease on a request that has ended, and the defect of any other use of it under the policy `die`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class ContextFinished extends /* @__PURE__ */ Data.TaggedError("ContextFinished")<{
  readonly id: string
  readonly name: string | undefined
}> {
  override get message(): string {
    return `The request ${this.id}${this.name === undefined ? "" : ` (${this.name})`} has ended and cannot be used any more.`
  }
}
