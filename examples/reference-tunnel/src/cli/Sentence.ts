import * as Data from "effect/Data"
import * as Effect from "effect/Effect"

/** Ends a process with one sentence for a person and an exit code. Never shown with a stack trace. */
export class Sentence extends Data.TaggedError("Sentence")<{
  readonly text: string
  readonly exitCode: number
}> {
  override get message(): string {
    return this.text
  }
}

/** Ends with the sentence and exit code 1: something outside is not as it should be. */
export const endWith = (text: string): Effect.Effect<never, Sentence> =>
  Effect.fail(new Sentence({ text, exitCode: 1 }))
