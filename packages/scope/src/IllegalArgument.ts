import * as Data from "effect/Data"

/**
 * The defect of a call that was given something it cannot mean: NaN or a sentence where a duration belongs, a
 * concurrency of zero, an instant that is no number. It is a defect and not a failure, because the program is wrong, and
 * no caller can do anything about it at run time. It comes before any work starts.
 *
 * One rule holds for all packages:
 *
 * | what | negative | zero | infinity | NaN, or of another kind |
 * | --- | --- | --- | --- | --- |
 * | a duration, a budget, a grace, a linger | as zero: it is over already | over at once | never, without a timer | `IllegalArgument` |
 * | an instant | in the past, if it is | in the past | never; minus infinity is past | `IllegalArgument` |
 * | a count: concurrency, capacity | `IllegalArgument` | a capacity holds nothing; else `IllegalArgument` | no limit | `IllegalArgument`, fractions too |
 *
 * **Example**
 *
 * ```ts
 * import * as Cause from "effect/Cause"
 * import * as Effect from "effect/Effect"
 * import * as Exit from "effect/Exit"
 * import { failAfter, IllegalArgument } from "@curfew/scope"
 *
 * const exit = Effect.runSyncExit(Effect.succeed(1).pipe(failAfter(Number.NaN)))
 * const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
 * defect instanceof IllegalArgument // => true
 * const sentence = 'The duration of the time limit is NaN. Pass a duration such as "5 seconds", or Infinity for never.'
 * defect instanceof Error && defect.message === sentence // => true
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export class IllegalArgument extends /* @__PURE__ */ Data.TaggedError("IllegalArgument")<{
  /** What it was given for: `the duration of the time limit`. */
  readonly argument: string
  readonly value: unknown
  /** What to pass instead. */
  readonly expected: string
}> {
  override get message(): string {
    const { argument, expected, value } = this
    return `${argument.charAt(0).toUpperCase()}${argument.slice(1)} is ${shown(value)}. Pass ${expected}.`
  }
}

const longest = 60

const shown = (value: unknown): string => {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value.length > longest ? `${value.slice(0, longest)}…` : value)
    case "object":
      return value === null ? "null" : "an object of another kind"
    case "function":
      return "a function"
    default:
      return String(value)
  }
}
