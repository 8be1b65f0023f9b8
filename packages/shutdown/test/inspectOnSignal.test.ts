import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { JsonTree } from "@curfew/scope"
import { CancelScope } from "@curfew/scope"
import { inspectOnSignal } from "@curfew/shutdown/Node"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"

/** A process whose output can be waited for. */
class Looked {
  readonly child: ChildProcess
  out = ""
  err = ""
  #heard = () => {}

  constructor(args: ReadonlyArray<string>) {
    const program = fileURLToPath(import.meta.resolve("./support/looking.ts"))
    this.child = spawn(process.execPath, ["-C", "@curfew/source", program, ...args])
    this.child.stdout?.on("data", (chunk) => {
      this.out += chunk
      this.#heard()
    })
    this.child.stderr?.on("data", (chunk) => {
      this.err += chunk
      this.#heard()
    })
  }

  /** Waits until something has been said so many times. */
  said(where: "out" | "err", text: string, times = 1): Effect.Effect<void> {
    return Effect.callback((resume) => {
      this.#heard = () => {
        if (this[where].split(text).length > times) resume(Effect.void)
      }
      this.#heard()
    })
  }

  signal(name: NodeJS.Signals): Effect.Effect<void> {
    return Effect.sync(() => this.child.kill(name))
  }

  tell(word: string): Effect.Effect<void> {
    return Effect.sync(() => this.child.stdin?.write(`${word}\n`))
  }
}

const start = (...args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => new Looked(args)),
    (looked) => Effect.sync(() => looked.child.kill("SIGKILL"))
  )

describe.skipIf(process.platform === "win32")("a process that is asked what lives in it", () => {
  it.live(
    "L47: prints its tree at each SIGUSR2, goes on working, and prints it while it drains, too",
    () =>
      Effect.gen(function* () {
        const looked = yield* start()
        yield* looked.said("out", "ready, 1 listening")
        yield* looked.signal("SIGUSR2")
        yield* looked.said("err", "a shutdown waits for 2: POST /orders, main\n")
        expect(looked.err).toMatch(
          /^├─ owner "main" +running +\d+ ms\n│ {2}└─ task "POST \/orders" +running +\d+ ms\n/m
        )
        expect(looked.err).toMatch(
          /^└─ task "main" +running +\d+ ms\n +└─ scope "serving" +running +\d+ ms\n/m
        )
        // No terminal, no colours.
        expect(looked.err).not.toContain("\u001b")
        yield* looked.tell("work")
        yield* looked.said("out", "did work")

        yield* looked.signal("SIGUSR2")
        yield* looked.said("err", "a shutdown waits for 2: POST /orders, main\n", 2)
        yield* looked.tell("more")
        yield* looked.said("out", "did more")

        yield* looked.signal("SIGTERM")
        yield* looked.said("out", "stopping")
        yield* looked.signal("SIGUSR2")
        yield* looked.said("err", "a shutdown waits for", 3)
        expect(looked.err).toMatch(/owner "main" +draining/)
        // Another one: the same, so soon, would be the first delivered twice.
        yield* looked.signal("SIGINT")
        yield* looked.said("out", "0 listening at the end")
        expect(looked.err).toMatch(/Shutdown after SIGTERM/)
      }).pipe(Effect.scoped),
    {
      timeout: 20_000
    }
  )

  it.live(
    "L47: prints one line of JSON when asked to",
    () =>
      Effect.gen(function* () {
        const looked = yield* start("json")
        yield* looked.said("out", "ready")
        yield* looked.signal("SIGUSR2")
        yield* looked.said("err", "\n")
        const tree = JSON.parse(looked.err) as JsonTree
        const names = tree.alive.map(({ below, kind, name, state }) => [
          kind,
          name,
          state,
          below === undefined ? undefined : tree.alive[below]?.name
        ])
        expect(names).toContainEqual(["task", "POST /orders", "running", "main"])
        expect(names).toContainEqual(["scope", "serving", "running", "main"])
        expect(tree.waitingFor).toEqual(["POST /orders", "main"])
      }).pipe(Effect.scoped),
    {
      timeout: 20_000
    }
  )
})

describe("inspectOnSignal", () => {
  it.effect("listens as long as its Scope is open, and not longer", () =>
    Effect.gen(function* () {
      const before = process.listenerCount("SIGUSR2")
      const scope = Scope.makeUnsafe()
      const printed: Array<string> = []
      yield* Scope.provide(inspectOnSignal({ print: (text) => printed.push(text) }), scope)
      expect(process.listenerCount("SIGUSR2") - before).toBe(1)
      yield* CancelScope.run(() => Effect.sync(() => process.emit("SIGUSR2")), { name: "lookup" })
      expect(printed).toEqual([expect.stringMatching(/^scope "lookup" {2}running .*\n1 alive: 1 running$/s)])
      yield* Scope.close(scope, yield* Effect.exit(Effect.void))
      expect(process.listenerCount("SIGUSR2")).toBe(before)
    })
  )

  it.effect("prints in colour when told to", () =>
    Effect.gen(function* () {
      const printed: Array<string> = []
      yield* inspectOnSignal({ colour: true, print: (text) => printed.push(text), signal: "SIGQUIT" })
      yield* CancelScope.run(() => Effect.sync(() => process.emit("SIGQUIT")))
      expect(printed[0]).toContain("\u001b[32mrunning\u001b[0m")
    }).pipe(Effect.scoped)
  )
})
