import * as Data from "effect/Data"

/** What grpc-js's errors say between the lines, and what to do about it. */
const known: ReadonlyArray<readonly [said: RegExp, because: string]> = [
  [/EADDRINUSE/, "because the address is in use; free it, or choose another"],
  [
    /EACCES|EPERM/,
    "because this process is not permitted to; choose a port above 1023, or a path it may write to"
  ],
  [
    /EADDRNOTAVAIL/,
    "because this machine does not have the address; choose one of its own, or 0.0.0.0 for all of them"
  ],
  [
    /resolution failed|Failed to parse|Could not (parse|get)/,
    "because the address cannot be resolved; write it as host and port, such as 127.0.0.1:50051"
  ]
]

/** The innermost of the errors that grpc-js has put into brackets. */
const innermost = (text: string): string => /\[([^[\]]+)\]$/.exec(text)?.[1] ?? text

/**
 * The address could not be bound. The message says why and what to do; `cause` is the transport's own error.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class BindError extends /* @__PURE__ */ Data.TaggedError("BindError")<{
  readonly address: string
  readonly cause: Error
}> {
  override get message(): string {
    const { message } = this.cause
    const because = known.find(([said]) => said.test(message))?.[1]
    const where = this.address === "" ? "an empty address" : this.address
    return `The server could not listen on ${where} ${because ?? `(${innermost(message)}); choose another address`}.`
  }
}
