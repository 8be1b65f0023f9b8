/**
 * The failures of a group that fails fast.
 *
 * Invariants
 * 1. Each failure is recorded once: the first in time is the group's own, the others are its siblings.
 * 2. A sibling is handed out for telling once (`untold`).
 */
import * as Cause from "effect/Cause"
import { SiblingFailures } from "../SiblingFailures.ts"

export interface Failure {
  readonly name: string | undefined
  readonly cause: Cause.Cause<unknown>
}

export class Failures {
  first: Failure | undefined
  readonly #siblings: Array<Failure> = []
  #told = 0

  /** Records a failure; true when it is the first. */
  add(cause: Cause.Cause<unknown>, name: string | undefined): boolean {
    const failure = { cause, name }
    if (this.first !== undefined) {
      this.#siblings.push(failure)
      return false
    }
    this.first = failure
    return true
  }

  /** The siblings that have not been handed out yet. */
  untold(): ReadonlyArray<Failure> {
    const untold = this.#siblings.slice(this.#told)
    this.#told = this.#siblings.length
    return untold
  }

  /** The first failure with the siblings as its annotation. */
  get annotated(): Cause.Cause<unknown> | undefined {
    if (this.first === undefined || this.#siblings.length === 0) return this.first?.cause
    const causes = this.#siblings.map((sibling) => sibling.cause)
    return Cause.annotate(this.first.cause, SiblingFailures.context(causes) as never)
  }
}
