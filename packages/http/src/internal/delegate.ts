/**
 * A cancel scope with something more, for handlers.
 *
 * Invariants
 * 1. Everything that a scope can do is that scope's: nothing is kept here.
 */
import type { CancelScope } from "@curfew/promise"
import type { CancelReason } from "@curfew/reason"

export class Delegate implements CancelScope {
  protected readonly scope: CancelScope

  constructor(scope: CancelScope) {
    this.scope = scope
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.scope[Symbol.asyncDispose]()
  }

  get name(): string | undefined {
    return this.scope.name
  }
  get signal(): AbortSignal {
    return this.scope.signal
  }
  get cancelled(): boolean {
    return this.scope.cancelled
  }
  get reason(): CancelReason | undefined {
    return this.scope.reason
  }
  get spawn(): CancelScope["spawn"] {
    return this.scope.spawn
  }
  get daemon(): CancelScope["daemon"] {
    return this.scope.daemon
  }
  readonly cancel: CancelScope["cancel"] = (reason) => this.scope.cancel(reason)
  readonly run: CancelScope["run"] = (work, options) => this.scope.run(work, options)
  readonly defer: CancelScope["defer"] = (cleanup, options) => this.scope.defer(cleanup, options)
  readonly onCancel: CancelScope["onCancel"] = (cleanup) => this.scope.onCancel(cleanup)
  readonly checkpoint: CancelScope["checkpoint"] = () => this.scope.checkpoint()
}
