/**
 * What servers have registered with a shutdown, and how far it is.
 *
 * Invariants
 * 1. A hook runs at most once. One that comes when its stage has begun runs at once; one that is taken back before does
 *    not run.
 * 2. The stage only goes forward.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"

export type Stage = "running" | "stop" | "drain" | "force" | "ended"

export interface Hook {
  readonly stage: "stop" | "drain" | "force"
  readonly name: string
  readonly context: Context.Context<never>
  readonly effect: Effect.Effect<unknown>
}

const order: ReadonlyArray<Stage> = ["running", "stop", "drain", "force", "ended"]

export class Registry {
  stage: Stage = "running"
  readonly #hooks = new Set<Hook>()
  readonly #start: (hook: Hook) => void
  /** Begins the shutdown, as a first signal does. */
  readonly begin: () => void

  constructor(options: { readonly start: (hook: Hook) => void; readonly begin: () => void }) {
    this.#start = options.start
    this.begin = options.begin
  }

  /** Returns the removal. */
  register(hook: Hook): () => void {
    // Forcing is for what did not drain; a shutdown that drained skips it, and has ended then.
    if (this.stage !== "ended" && order.indexOf(this.stage) >= order.indexOf(hook.stage)) {
      this.#start(hook)
      return () => {}
    }
    this.#hooks.add(hook)
    return () => {
      this.#hooks.delete(hook)
    }
  }

  /** The hooks of a stage that has come, to be started by whoever takes them. */
  takeHooks(stage: Hook["stage"]): ReadonlyArray<Hook> {
    const taken = [...this.#hooks].filter((hook) => hook.stage === stage)
    for (const hook of taken) this.#hooks.delete(hook)
    return taken
  }
}

export const CurrentShutdown: Context.Reference<Registry | undefined> = /* @__PURE__ */ Context.Reference(
  "@curfew/shutdown/CurrentShutdown",
  { defaultValue: (): Registry | undefined => undefined }
)
