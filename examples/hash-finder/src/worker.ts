/** A worker thread: one job in, one answer out. Its own event loop hears nothing meanwhile, so it polls a flag. */
import { parentPort, workerData } from "node:worker_threads"
import { batchSize, type Found, type Job, tryAll } from "./search.ts"
import { stop, tried } from "./shared.ts"

const shared = workerData as Int32Array

parentPort?.on("message", (job: Job) => {
  let found: Found = { candidates: [], tried: 0, ideal: false }
  let done = 0
  while (done < job.count && found.candidates.length === 0 && Atomics.load(shared, stop) === 0) {
    found = tryAll({ ...job, from: job.from + done, count: Math.min(batchSize, job.count - done) })
    done += found.tried
    Atomics.store(shared, tried, done)
  }
  parentPort?.postMessage({ ...found, tried: done } satisfies Found)
})
