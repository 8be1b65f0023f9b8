/**
 * What a person can mend: said in one sentence, without a stack, and with exit code 2.
 *
 * **Invariants**
 * 1. The message is a whole sentence that says what to do.
 */
import * as Data from "effect/Data"

export class Mistake extends Data.TaggedError("Mistake")<{ readonly sentence: string }> {
  override get message(): string {
    return this.sentence
  }
}

export const mistake = (sentence: string): Mistake => new Mistake({ sentence })
