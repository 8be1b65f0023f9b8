/** Faults on purpose, for `--plant`: what the measurement must find. Each is the real thing, not a changed number. */
import type { EventEmitter } from "node:events"
import type { ServiceClientConstructor } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { Process } from "./Process.ts"

/** A fiber that nobody owns and that never ends. */
export const plantFiber: Effect.Effect<void> = Effect.asVoid(Effect.forkDetach(Effect.never))

/** A background task whose failure nobody looks at. */
export const plantError: Effect.Effect<void, never, Process> = Effect.sync(() => {
  const task = async () => {
    await Promise.resolve()
    throw new Error("planted: a background task failed and nobody waits for it")
  }
  void task()
})

/** A stream without an end that nobody cancels and no scope owns. */
export const plantStream = (stub: InstanceType<ServiceClientConstructor>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const open = (stub["FindRange"] as (request: object) => EventEmitter).bind(stub)
    const call = open({ word: "planted", distance: 0, count: 0 })
    call.on("error", () => undefined)
    call.once("data", () => resume(Effect.void))
  })
