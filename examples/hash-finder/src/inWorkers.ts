import { Worker } from "node:worker_threads"
import * as Effect from "effect/Effect"
import * as Pool from "effect/Pool"
import type * as Scope from "effect/Scope"
import type { Progress, Search } from "./handlers.ts"
import type { Found, Job } from "./search.ts"
import { makeShared, stop, tried } from "./shared.ts"

/**
 * Searches in a pool of worker threads, which end with the `Scope`. Each job borrows a worker; a cancelled one sets the
 * worker's flag and waits for its answer, so that the worker is back in the pool within one batch, not terminated.
 */
export const inWorkers = (size: number): Effect.Effect<Search, never, Scope.Scope> =>
  Effect.map(
    Pool.make({ acquire: thread, size }),
    (pool): Search =>
      (job, progress) =>
        Effect.scoped(
          Effect.flatMap(Pool.get(pool), (borrowed) =>
            Effect.ensuring(
              run(borrowed, job, progress),
              Effect.suspend(() => (borrowed.broken ? Pool.invalidate(pool, borrowed) : Effect.void))
            )
          )
        )
  )

interface Thread {
  readonly worker: Worker
  readonly id: number
  readonly shared: Int32Array
  broken: boolean
}

const thread: Effect.Effect<Thread, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const shared = makeShared()
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { workerData: shared })
    return { worker, id: worker.threadId, shared, broken: false }
  }),
  ({ worker }) => Effect.promise(() => worker.terminate())
)

const run = (thread: Thread, job: Job, progress: Progress): Effect.Effect<Found> =>
  Effect.callback((resume) => {
    const { id, shared, worker } = thread
    progress.worker = id
    // Nobody else uses the worker, and it waits for a job: the flag is from an earlier one.
    Atomics.store(shared, stop, 0)
    Atomics.store(shared, tried, 0)

    let answered = (): void => {}
    const settle = (outcome: Effect.Effect<Found>): void => {
      worker.off("message", onAnswer).off("error", onError)
      resume(outcome)
      answered()
    }
    const onAnswer = (found: Found): void => {
      progress.tried += found.tried
      settle(Effect.succeed(found))
    }
    const onError = (error: unknown): void => {
      thread.broken = true
      settle(Effect.die(error))
    }
    worker.on("message", onAnswer).on("error", onError)
    worker.postMessage(job)

    // Runs when the search is cancelled, and what cancelled it waits until it is done.
    return Effect.callback((back) => {
      Atomics.store(shared, stop, 1)
      const before = progress.tried + Atomics.load(shared, tried)
      answered = () => {
        progress.pastTheFlag = progress.tried - before
        back(Effect.void)
      }
    })
  })
