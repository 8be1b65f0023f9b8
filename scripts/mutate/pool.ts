/** Runs jobs in processes of their own, each over its own copy of the tree, and ends what hangs. */
import { type ChildProcess, fork } from "node:child_process"
import { rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { copyOf } from "./project.ts"
import type { Answer, Job, Said } from "./protocol.ts"

// The patience within a job is the worker's; this one is for a worker that says nothing at all.
const startMillis = 60_000
const silentMillis = 15 * 60_000

export class Worker {
  readonly tree: string
  #process: ChildProcess | undefined

  constructor(root: string, modules?: string) {
    this.tree = copyOf(root, modules)
  }

  async run(job: Job): Promise<Answer> {
    const child = this.#process ?? (await this.#start())
    const answer = await new Promise<Answer>((resolve) => {
      const gone = (why: string): void => resolve({ verdict: "timed out", message: why, slowest: 0 })
      const timer = setTimeout(() => gone("the worker said nothing"), silentMillis)
      child.once("exit", () => gone("the worker ended"))
      child.on("message", (said: Said) => {
        if (said._tag !== "Answer") return
        clearTimeout(timer)
        resolve(said.answer)
      })
      child.send(job)
    })
    child.removeAllListeners()
    // What hangs does not end by being told to, and it has overwritten files: start anew.
    if (answer.verdict === "timed out") this.#end(job)
    return answer
  }

  async #start(): Promise<ChildProcess> {
    // A long gate asks for many more random cases; the tests have their own number when mutants meet them.
    const { CURFEW_RUNS: _, CURFEW_TEST_REPORT: __, ...env } = process.env
    const child = fork(join(import.meta.dirname, "worker.ts"), [this.tree], {
      detached: true,
      env,
      stdio: ["ignore", "ignore", process.env["CURFEW_MUTATE_DEBUG"] ? "inherit" : "ignore", "ipc"]
    })
    this.#process = child
    await new Promise<void>((resolve, reject) => {
      const fail = (why: string): void => {
        this.#end()
        reject(
          new Error(
            `The process that runs the tests did not start: ${why}. CURFEW_MUTATE_DEBUG=1 shows more.`
          )
        )
      }
      const timer = setTimeout(() => fail("it said nothing for a minute"), startMillis)
      child.once("exit", (code) => fail(`it ended with ${code}`))
      child.once("message", () => {
        clearTimeout(timer)
        child.removeAllListeners()
        resolve()
      })
    })
    return child
  }

  /** Ends the process with everything it has started. */
  #end(job?: Job): void {
    const pid = this.#process?.pid
    this.#process = undefined
    try {
      if (pid !== undefined) process.kill(-pid, "SIGKILL")
    } catch {
      // It has ended by itself.
    }
    for (const { original, path } of job?.files ?? []) this.restore(path, original)
  }

  restore(path: string, text: string): void {
    writeFileSync(join(this.tree, path), text)
  }

  close(): void {
    this.#end()
    // What was killed may still be writing its last file.
    rmSync(this.tree, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 })
  }
}
