/**
 * Chance: programs put together at random from the primitives are swept, and the primitives' schedules are explored by
 * seeds. `npm run test:soak` repeats these with fresh seeds for as long as one likes.
 */
import { gather } from "@curfew/gather"
import { onCancel } from "@curfew/guard"
import { CancelScope, failAfter, moveOnAfter, OnUnhandled, Owner, TaskScope } from "@curfew/scope"
import { delayCancellation, stopCancellation } from "@curfew/shield"
import { Shared } from "@curfew/singleflight"
import { explore, formatExplore, formatSweep, Probe, sweep } from "@curfew/testing"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { repeats, runs, seed } from "./support/seed.ts"

// The first operations of a task are one step: no scheduler holds a fiber up there.
const young = 5

type Program = Effect.Effect<unknown, unknown, Owner>

/** A program in words; what fast-check shrinks. */
type Plan =
  | { readonly _tag: "step" | "sleep" }
  | { readonly _tag: keyof typeof wrappers; readonly inner: Plan }
  | { readonly _tag: keyof typeof pairs; readonly left: Plan; readonly right: Plan }

const wrappers = {
  scope: (inner: Program): Program => CancelScope.run(() => inner),
  failAfter: (inner: Program): Program => Effect.option(failAfter("1 second")(inner)),
  moveOnAfter: (inner: Program): Program => moveOnAfter("3 seconds")(inner),
  delay: (inner: Program): Program => delayCancellation(inner),
  stop: (inner: Program): Program => stopCancellation(inner),
  guarded: (inner: Program): Program => onCancel(inner, () => Effect.yieldNow),
  masked: (inner: Program): Program => Effect.uninterruptible(inner),
  tasks: (inner: Program): Program =>
    TaskScope.use((tasks: TaskScope.TaskScope) => Effect.andThen(tasks.spawn(inner), Effect.yieldNow)),
  shared: (inner: Program): Program =>
    Effect.scoped(Effect.flatMap(Shared.make(inner), (shared) => shared.get))
}

const pairs = {
  gather: (left: Program, right: Program): Program => gather([left, right]),
  race: (left: Program, right: Program): Program => Effect.raceFirst(left, right),
  sequence: (left: Program, right: Program): Program => Effect.andThen(left, right),
  ensuring: (left: Program, right: Program): Program => Effect.ensuring(left, Effect.ignore(right))
}

const keysOf = <T extends object>(of: T) => Object.keys(of) as Array<keyof T & string>

const plans: fc.Arbitrary<Plan> = fc.letrec<{ plan: Plan }>((tie) => ({
  plan: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.constantFrom<Plan>({ _tag: "step" }, { _tag: "sleep" }),
    fc.record({ _tag: fc.constantFrom(...keysOf(wrappers)), inner: tie("plan") }),
    fc.record({ _tag: fc.constantFrom(...keysOf(pairs)), left: tie("plan"), right: tie("plan") })
  )
})).plan

/** The program; each leaf holds a resource for as long as it runs. */
const build = (plan: Plan, held: Probe.Resource): Program => {
  if ("inner" in plan) return wrappers[plan._tag](build(plan.inner, held))
  if ("left" in plan) return pairs[plan._tag](build(plan.left, held), build(plan.right, held))
  return held.around(plan._tag === "step" ? Effect.yieldNow : Effect.sleep("2 seconds"))
}

const subject = (plan: Plan) => ({
  name: JSON.stringify(plan),
  setup: Effect.map(Probe.resource("resource"), (held) =>
    Effect.provide(
      Effect.provideService(Effect.asVoid(build(plan, held)), OnUnhandled, () => Effect.void),
      Owner.layer()
    )
  )
})

describe("programs put together at random", { timeout: 600_000 }, () => {
  test("survive a cancel at every step, and leave nothing", async () => {
    await fc.assert(
      fc.asyncProperty(plans, async (plan) => {
        const report = await Effect.runPromise(
          sweep(subject(plan), { modes: ["root", "twice"], maxRuns: 40, young })
        )
        expect(formatSweep(report)).toContain("nothing broken")
      }),
      { numRuns: Math.ceil(runs(100).numRuns / 4) }
    )
  })

  test("survive every schedule of a seed, and leave nothing", async () => {
    await fc.assert(
      fc.asyncProperty(plans, fc.nat(), async (plan, first) => {
        const report = await Effect.runPromise(explore(subject(plan), { seed: first, schedules: 20, young }))
        expect(formatExplore(report)).toContain("nothing broken")
      }),
      { numRuns: Math.ceil(runs(100).numRuns / 4) }
    )
  })
})

describe("the schedules of a seed", { timeout: 600_000 }, () => {
  const steps = Effect.andThen(Effect.yieldNow, Effect.as(Effect.yieldNow, 1))
  const programs = {
    "two observers share one run": Effect.gen(function* () {
      let begun = 0
      const shared = yield* Shared.make(
        Effect.andThen(
          Effect.sync(() => begun++),
          steps
        )
      )
      const [one, other] = yield* Effect.all([shared.get, shared.get], { concurrency: "unbounded" })
      return begun === 1 && one === other
    }).pipe(Effect.scoped, Effect.provide(Owner.layer())),
    "one generation at a time, when an observer leaves and another comes": Effect.gen(function* () {
      let active = 0
      let most = 0
      const shared = yield* Shared.make(
        Effect.acquireUseRelease(
          Effect.sync(() => {
            most = Math.max(most, ++active)
          }),
          () => steps,
          () =>
            Effect.andThen(
              Effect.yieldNow,
              Effect.sync(() => active--)
            )
        )
      )
      const first = yield* Effect.forkChild(shared.get)
      yield* Effect.all([Fiber.interrupt(first), shared.get], { concurrency: "unbounded" })
      return most === 1
    }).pipe(Effect.scoped, Effect.provide(Owner.layer())),
    "what spawn accepted has run, or its onNeverStarted has": Effect.gen(function* () {
      const seen: Array<number> = [0, 0, 0]
      const count = (index: number) =>
        Effect.sync(() => {
          seen[index] = (seen[index] ?? 0) + 1
        })
      yield* Effect.scoped(
        Effect.gen(function* () {
          const tasks = yield* TaskScope.make()
          yield* Effect.forEach([0, 1, 2], (index) =>
            tasks.spawn(Effect.andThen(count(index), steps), { onNeverStarted: count(index) })
          )
          yield* tasks.cancel()
        })
      )
      return seen.every((times) => times === 1)
    }),
    "the first of two cancels wins, and says so": CancelScope.run((scope) =>
      Effect.map(
        Effect.uninterruptible(Effect.all([scope.cancel(), scope.cancel()], { concurrency: "unbounded" })),
        (firsts) => firsts.filter((first) => first).length === 1
      )
    )
  } satisfies Record<string, Effect.Effect<unknown, unknown>>

  test.each(Object.entries(programs))("%s", async (name, program) => {
    const report = await Effect.runPromise(
      explore(
        {
          name,
          setup: Effect.as(
            Probe.invariant(
              name,
              ({ exit }) => exit._tag === "Success" && (exit.value === true || typeof exit.value === "object")
            ),
            program as Effect.Effect<unknown, unknown>
          )
        },
        { seed, schedules: Math.ceil(150 * repeats), young }
      )
    )
    expect(formatExplore(report)).toContain("nothing broken")
  })
})
