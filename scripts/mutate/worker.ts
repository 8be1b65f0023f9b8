/**
 * Runs tests over a copy of the tree, job after job: `node worker.ts <tree>`. The transformed sources stay warm from
 * one job to the next; each test file of a job runs in a new process, so that nothing of an earlier mutant is left.
 */
import { rmSync, writeFileSync } from "node:fs"
import { join, relative } from "node:path"
import { createVitest, type Reporter, type TestModule } from "vitest/node"
import type { Answer, Job, Said, TestFile } from "./protocol.ts"
import { queueing } from "./queueing.ts"

const tree = process.argv[2] as string
const say = (said: Said): void => {
  process.send?.(said)
}

let order: ReadonlyArray<string> = []
let waiting: Array<TestFile> = []
let onNews: () => void = () => {}

const pathOf = (module: TestModule): string => relative(tree, module.moduleId)

const reporter: Reporter = {
  onTestModuleStart: () => onNews(),
  onTestCaseResult: () => onNews(),
  onTestModuleEnd: (module) => {
    onNews()
    waiting = waiting.filter(({ path }) => path !== pathOf(module))
  }
}

class InGivenOrder {
  shard<T>(specs: T): T {
    return specs
  }
  sort<T extends { readonly moduleId: string }>(specs: ReadonlyArray<T>): Array<T> {
    return specs.toSorted((a, b) => order.indexOf(a.moduleId) - order.indexOf(b.moduleId))
  }
}

const vitest = await createVitest("test", {
  root: tree,
  config: join(tree, "vitest.config.ts"),
  watch: false,
  bail: 1,
  pool: "forks",
  isolate: true,
  // Whether a test hangs is for the campaign to say, which knows how busy the machine is.
  testTimeout: 900_000,
  hookTimeout: 900_000,
  maxWorkers: 1,
  // A mutant may fill the memory; it must not fill the machine's.
  execArgv: ["--max-old-space-size=2048"],
  reporters: [reporter],
  setupFiles: [join(import.meta.dirname, "reached.ts")],
  sequence: { sequencer: InGivenOrder as never },
  silent: true,
  coverage: { enabled: false }
})
await vitest.standalone()

const overwrite = (path: string, text: string): void => {
  writeFileSync(join(tree, path), text)
  vitest.invalidateFile(join(tree, path))
}

const outcome = (slowest: number): Answer => {
  for (const module of vitest.state.getTestModules()) {
    if (module.ok()) continue
    const file = pathOf(module)
    for (const test of module.children.allTests("failed"))
      return {
        verdict: "failed",
        file,
        test: test.fullName,
        message: test.result().errors?.[0]?.message,
        slowest
      }
    // A module that never ran because another failed first is not the one.
    const [error] = module.errors()
    if (error !== undefined) return { verdict: "failed", file, message: error.message, slowest }
    for (const suite of module.children.allSuites()) {
      const [thrown] = suite.errors()
      if (thrown !== undefined) return { verdict: "failed", file, message: thrown.message, slowest }
    }
  }
  const [error] = vitest.state.getUnhandledErrors()
  const file = waiting[0]?.path ?? order.map((path) => relative(tree, path)).at(-1)
  if (error !== undefined)
    return { verdict: "failed", file, message: String((error as Error)?.message), slowest }
  if (waiting.length > 0) return { verdict: "failed", file, message: "it did not end", slowest }
  return { verdict: "passed", slowest }
}

const perform = async ({ files, reachedFile, tests }: Job): Promise<void> => {
  for (const { path, text } of files) overwrite(path, text)
  order = tests.map(({ path }) => join(tree, path))
  waiting = [...tests]
  if (reachedFile === undefined) delete process.env["CURFEW_REACHED"]
  else {
    rmSync(reachedFile, { force: true })
    process.env["CURFEW_REACHED"] = reachedFile
  }

  let answered = false
  let slowest = 0
  let last = performance.now()
  const answer = (said: Answer): void => {
    if (answered) return
    answered = true
    say({ _tag: "Answer", answer: said })
  }
  // The time of a start comes on top of the first file's.
  let news = tests.length === 0 ? 0 : performance.now() + 10_000
  // What the tests had to wait for a processor since the last news is the machine's silence, not theirs.
  const queued = queueing(process.pid)
  let held = 0
  onNews = () => {
    const now = performance.now()
    slowest = Math.max(slowest, now - last - held - queued())
    last = now
    news = now
    held = 0
  }
  // A hang may be a loop that never yields: it is noticed here, in another process than the test's.
  const watch = setInterval(() => {
    const current = waiting[0]
    held += queued()
    const silent = performance.now() - news - held
    if (current !== undefined && silent > current.patience)
      answer({ verdict: "timed out", file: current.path, slowest: Math.max(slowest, silent) })
  }, 100)

  const project = vitest.getRootProject()
  vitest.state.filesMap.clear()
  vitest.state.pathsSet.clear()
  await vitest.runTestSpecifications(order.map((path) => project.createSpecification(path)))
  clearInterval(watch)
  for (const { original, path } of files) overwrite(path, original)
  answer(outcome(slowest))
}

process.on("message", (job: Job) => {
  perform(job).catch((error) =>
    say({
      _tag: "Answer",
      answer: { verdict: "failed", message: `the tests could not be run: ${error}`, slowest: 0 }
    })
  )
})
// Nobody listens any more: end with everything that was started here, hung tests among it.
process.on("disconnect", () => process.kill(-process.pid, "SIGKILL"))
say({ _tag: "Ready" })
