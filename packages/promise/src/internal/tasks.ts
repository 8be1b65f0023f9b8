/**
 * Tasks for promise programs.
 *
 * Invariants
 * 1. The failure of a task has a receiver other than its `join`: the scope, or the owner's. So `join` need not be awaited,
 *    and never becomes an unhandled rejection.
 */
import { CancelReason } from "@curfew/reason"
import { TaskScopeClosed } from "@curfew/scope"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import type { Work } from "../Options.ts"
import type { Task } from "../Task.ts"
import { quiet, toPromise } from "./bridge.ts"
import { reasonOf } from "./launch.ts"
import { type Spawned, spawnLightly } from "./light.ts"
import { InDaemon } from "./place.ts"
import { runNow } from "./runNow.ts"
import { checkWork, settle } from "./settle.ts"

const requested: CancelReason = /* @__PURE__ */ CancelReason.Requested({ message: "cancel was called" })

type Running<A> = TaskScope.Task<A, unknown> & { readonly fiber: Fiber.Fiber<A, unknown> }

const taskOf = <A>(context: Context.Context<never>, running: Running<A>): Task<A> => ({
  name: running.name,
  join: quiet(toPromise(running.fiber)),
  cancel: (reason) => running.cancelUnsafe(reasonOf(reason, requested)),
  get status() {
    return runNow(context, running.status)
  }
})

/** Of a class: a literal with an accessor costs more than all the rest of a task. */
class LightTask<A> implements Task<A> {
  readonly name: string | undefined
  readonly join: Promise<A>
  readonly #light: Spawned<A>

  constructor(light: Spawned<A>, name: string | undefined) {
    this.name = name
    this.join = quiet(light.promise)
    this.#light = light
  }

  // A function of its own, so that it can be handed on; made when somebody asks.
  get cancel(): Task<A>["cancel"] {
    return (reason) => this.#light.cancel(reasonOf(reason, requested))
  }

  get status(): Task<A>["status"] {
    return this.#light.status
  }
}

export interface Spawn {
  readonly context: Context.Context<never>
  readonly tasks: TaskScope.TaskScope
}

/** `(work)` or `(name, work)`. */
export const named = <A>(
  first: string | Work<A>,
  second: Work<A> | undefined
): readonly [string | undefined, Work<A>] =>
  typeof first === "string" ? [first, second as Work<A>] : [first.name || undefined, first]

export const spawn = <A>(
  { context, tasks }: Spawn,
  name: string | undefined,
  work: Work<A>,
  daemon = false
): Task<A> => {
  checkWork(work)
  const light = daemon ? undefined : spawnLightly({ tasks, context, name }, work)
  if (light !== undefined) return new LightTask(light, name)
  const own = daemon ? Context.add(context, InDaemon, true) : context
  const running = TaskScope.spawnUnsafe(tasks, own, settle(work, { name, failsLate: true }), { name, daemon })
  if (running === undefined) throw new TaskScopeClosed({ scope: tasks.name })
  return taskOf(context, running)
}
