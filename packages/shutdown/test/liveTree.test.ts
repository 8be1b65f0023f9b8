/** L47 over every package that starts work: each thing stands in the tree exactly once, and is gone afterwards. */
import { gather } from "@curfew/gather"
import { guard, onCancel } from "@curfew/guard"
import { CancelReason } from "@curfew/reason"
import { rootsUnsafe } from "@curfew/reason/CancelCell"
import { Endpoint, PeerSignal } from "@curfew/request"
import {
  background,
  bounded,
  CancelScope,
  failAfter,
  inspect,
  type LiveNode,
  type LiveTree,
  moveOnAfter,
  Owner,
  TaskScope
} from "@curfew/scope"
import { delayCancellation, stopCancellation } from "@curfew/shield"
import { Shutdown } from "@curfew/shutdown"
import { Shared, SharedMap } from "@curfew/singleflight"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"

const shape = (nodes: ReadonlyArray<LiveNode>, depth = 0): ReadonlyArray<string> =>
  nodes.flatMap((node) => [
    `${"  ".repeat(depth)}${node.kind} ${node.name ?? "-"}: ${node.state}${node.daemon ? ", daemon" : ""}`,
    ...shape(node.children, depth + 1)
  ])

interface Row {
  readonly what: string
  /** Starts the thing; `go` ends when it may end. Whatever it forks ends with it. */
  readonly start: (go: Effect.Effect<void>) => Effect.Effect<unknown, unknown, Owner | Scope.Scope>
  /** The tree once that has come to rest. The owner is left out where nothing hangs below it. */
  readonly alive: ReadonlyArray<string>
  readonly waitingFor: ReadonlyArray<string>
}

const fork = <A, E, R>(work: Effect.Effect<A, E, R>) => Effect.forkChild(work, { startImmediately: true })
const superseded = CancelReason.Superseded()

/** Runs the work in a scope that is cancelled at once. */
const cancelled = <R>(work: Effect.Effect<unknown, never, R>) =>
  CancelScope.run(
    (scope) => Effect.andThen(fork(Effect.andThen(Effect.yieldNow, scope.cancel(superseded))), work),
    {
      name: "it"
    }
  )

/** A waiter that leaves at once, and does not end the test's own fiber. */
const left = <A, E, R>(work: Effect.Effect<A, E, R>) =>
  Effect.flatMap(fork(work), (fiber) => fork(Fiber.interrupt(fiber)))

const three = <A, E, R>(work: Effect.Effect<A, E, R>) => Effect.all([work, work, work], { concurrency: 3 })

const rows: ReadonlyArray<Row> = [
  {
    what: "a Shared run with three observers",
    start: (go) => Effect.flatMap(Shared.make(go, { name: "it" }), (shared) => three(shared.get)),
    alive: ["owner o: running", "  shared it: running"],
    waitingFor: ["it"]
  },
  {
    what: "a SharedMap run with three observers",
    start: (go) =>
      Effect.flatMap(
        SharedMap.make((_: string) => go, { name: "it" }),
        (map) => three(map.get("a"))
      ),
    alive: ["owner o: running", "  shared it(a): running"],
    waitingFor: ["it(a)"]
  },
  {
    what: "a Shared run that nobody observes any more, and that cleans up",
    start: (go) =>
      Effect.flatMap(Shared.make(Effect.ensuring(Effect.never, go), { name: "it" }), (shared) =>
        Effect.andThen(left(shared.get), Effect.andThen(Effect.yieldNow, go))
      ),
    alive: ["owner o: running", "  shared it: cleaning up"],
    waitingFor: ["it"]
  },
  {
    what: "a Shared run under a closed owner, attached to its observer",
    start: (go) =>
      Effect.gen(function* () {
        const shared = yield* Shared.make(go, { name: "it" })
        yield* (yield* Owner).close
        yield* shared.get
      }),
    alive: ["shared it: running"],
    waitingFor: ["it"]
  },
  {
    what: "stopCancellation, while its waiter waits",
    start: (go) => stopCancellation(go, { name: "it" }),
    alive: ["owner o: running", "  task it: running"],
    waitingFor: ["it"]
  },
  {
    what: "stopCancellation, after its waiter has left",
    start: (go) => Effect.andThen(left(stopCancellation(go, { name: "it" })), go),
    alive: ["owner o: running", "  task it: running"],
    waitingFor: ["it"]
  },
  {
    what: "stopCancellation under a closed owner",
    start: (go) =>
      Effect.andThen(
        Effect.flatMap(Owner, (owner) => owner.close),
        stopCancellation(go, { name: "it" })
      ),
    alive: ["shield it: running"],
    waitingFor: ["it"]
  },
  {
    what: "delayCancellation in a scope that is cancelled",
    start: (go) => cancelled(delayCancellation(go, { name: "shielded" })),
    alive: ["scope it: cleaning up", "  shield shielded: running"],
    waitingFor: ["shielded"]
  },
  {
    what: "background work",
    start: (go) => Effect.flatMap(background("it", go), (task) => task.exit),
    alive: ["owner o: running", "  task it: running"],
    waitingFor: ["it"]
  },
  {
    what: "the clean-up of onCancel",
    start: (go) => cancelled(onCancel(Effect.never, () => go)),
    alive: ["scope it: cleaning up", "  cleanup onCancel: cleaning up"],
    waitingFor: ["onCancel"]
  },
  {
    what: "the clean-up of a guard, armed before",
    start: (go) =>
      cancelled(
        Effect.scoped(
          Effect.andThen(
            guard(() => go),
            Effect.never
          )
        )
      ),
    alive: ["scope it: cleaning up", "  cleanup guard: cleaning up"],
    waitingFor: ["guard"]
  },
  {
    what: "bounded clean-up of work that ended by itself",
    start: (go) =>
      CancelScope.run(() => Effect.ensuring(Effect.void, bounded(go, { name: "close" })), { name: "it" }),
    alive: ["scope it: running", "  cleanup close: cleaning up"],
    waitingFor: ["close"]
  },
  {
    what: "bounded clean-up that is stuck",
    start: (go) => Effect.andThen(bounded(go, { name: "it", within: 0 }), go),
    alive: ["cleanup it: stuck"],
    waitingFor: []
  },
  {
    what: "tasks and daemons of a task scope",
    start: (go) =>
      TaskScope.use(
        (tasks: TaskScope.TaskScope<never>) =>
          Effect.gen(function* () {
            yield* tasks.spawn(go, { name: "spawned" })
            yield* tasks.daemon(go, { name: "daemon" })
            yield* go
          }),
        { name: "it" }
      ),
    alive: [
      "tasks it: running",
      "  tasks it: running",
      "    task spawned: running",
      "    task daemon: running, daemon",
      "  scope it: running"
    ],
    waitingFor: ["spawned"]
  },
  {
    what: "work that was started and said that it is ready",
    start: (go) =>
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make({ name: "it" })
        yield* tasks.start((ready) => Effect.andThen(ready(1), go), { name: "server" })
        yield* go
      }),
    alive: ["tasks it: running", "  task server: running"],
    waitingFor: ["server"]
  },
  {
    what: "an owner that drains",
    start: (go) =>
      Effect.gen(function* () {
        const owner = yield* Owner
        const task = yield* background("it", go)
        yield* owner.close
        yield* task.exit
      }),
    alive: ["owner o: draining", "  task it: running"],
    waitingFor: ["it"]
  },
  {
    what: "time limits",
    start: (go) => failAfter(moveOnAfter(go, "1 hour", { name: "inner" }), "1 hour", { name: "it" }),
    alive: ["scope it: running", "  scope inner: running"],
    waitingFor: []
  },
  {
    what: "a scope of a signal",
    start: (go) => Effect.andThen(CancelScope.fromSignal(new AbortController().signal), go),
    alive: ["scope -: running"],
    waitingFor: []
  },
  {
    what: "the items of a gather",
    start: (go) => gather({ a: go, b: go }),
    alive: ["tasks gather: running", "  task gather[a]: running", "  task gather[b]: running"],
    waitingFor: ["gather[a]", "gather[b]"]
  },
  {
    what: "a call at an edge",
    start: (go) =>
      Effect.flatMap(PeerSignal.make, (peer) =>
        Endpoint.run(go, { method: "GET /it", transport: "http1", kind: "request", peer })
      ),
    alive: ["owner o: running", "  call GET /it: running"],
    waitingFor: ["GET /it"]
  },
  {
    what: "a program with a shutdown",
    start: (go) => Shutdown.run(go, { name: "it" }),
    alive: ["scope it: running", "  owner it: running", "  task it: running", "tasks shutdown: running"],
    waitingFor: ["it"]
  }
]

/** Without the test's own owner where nothing hangs below it. */
const seen = (tree: LiveTree) =>
  shape(tree.roots.filter((node) => node.kind !== "owner" || node.children.length > 0))

describe("L47: everything that is started stands in the live tree", () => {
  it.effect.each(rows)("L47: once while it lives and not afterwards: $what", ({ alive, start, waitingFor }) =>
    Effect.gen(function* () {
      const go = yield* Deferred.make<void>()
      const fiber = yield* fork(
        start(Deferred.await(go)).pipe(Effect.scoped, Effect.provide(Owner.layer({ name: "o" })))
      )
      yield* TestClock.adjust(0)
      const tree = yield* inspect
      // Before anything is asserted: an owner waits for what it has.
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.await(fiber)
      expect(seen(tree)).toEqual(alive)
      expect(tree.waitingFor).toEqual(waitingFor)
      expect(yield* inspect).toEqual({ roots: [], stuck: [], waitingFor: [] })
      expect(rootsUnsafe().length).toBe(0)
    })
  )
})
