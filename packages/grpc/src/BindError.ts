import * as Data from "effect/Data"

/**
 * The address could not be bound.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class BindError extends /* @__PURE__ */ Data.TaggedError("BindError")<{
  readonly address: string
  readonly cause: Error
}> {
  override get message(): string {
    return `The server could not listen on ${this.address}: ${this.cause.message}. Free the address, or choose another.`
  }
}
