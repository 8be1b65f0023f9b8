import * as Data from "effect/Data"

/**
 * The defect of a `get` that could never be answered: it was called from inside the very run it would wait for, or from
 * inside another run that this one waits for. A defect and not a failure, because the program is wrong: whoever asked
 * first would otherwise decide who gets the error.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class SharedSelfWait extends /* @__PURE__ */ Data.TaggedError("SharedSelfWait")<{
  /** The name of the run that was asked for; in a map it carries the key. */
  readonly name: string
  /** The runs from the one that was asked for to the one that asks, each waiting for the next. */
  readonly path: ReadonlyArray<string>
}> {
  override get message(): string {
    const [, ...others] = this.path
    const by = others.length === 0 ? "" : ` by way of ${others.map((name) => `"${name}"`).join(", ")}`
    return `The shared work "${this.name}" would wait for itself${by}, and never end. Compute what it needs inside the run, or ask for it before the run starts.`
  }
}
