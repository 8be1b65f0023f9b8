/**
 * The cancel scope of a request that has none yet.
 *
 * Invariants
 * 1. Everything that takes a scope asks for it, and is that of the request from then on.
 */
import type { CancelScope } from "@curfew/promise"
import type { CancelReason } from "@curfew/reason"
import type { Light } from "./light.ts"

export class LightScope<L extends Light> implements CancelScope {
  protected readonly light: L

  constructor(light: L) {
    this.light = light
  }

  get name(): string | undefined {
    return this.light.name
  }
  get cancelled(): boolean {
    return this.light.full?.cancelled ?? false
  }
  get reason(): CancelReason | undefined {
    return this.light.full?.reason
  }
  get signal(): AbortSignal {
    return this.light.needed.signal
  }
  get spawn(): CancelScope["spawn"] {
    return this.light.needed.spawn
  }
  get daemon(): CancelScope["daemon"] {
    return this.light.needed.daemon
  }
  get cancel(): CancelScope["cancel"] {
    return this.light.needed.cancel
  }
  get run(): CancelScope["run"] {
    return this.light.needed.run
  }
  get defer(): CancelScope["defer"] {
    return this.light.needed.defer
  }
  get onCancel(): CancelScope["onCancel"] {
    return this.light.needed.onCancel
  }
  get checkpoint(): CancelScope["checkpoint"] {
    return this.light.needed.checkpoint
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.light.needed[Symbol.asyncDispose]()
  }
}
