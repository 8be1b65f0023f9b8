import * as Effect from "effect/Effect"
import type {} from "vitest"
import { type SweepableRoute, unclean, unswept } from "./expectSwept.ts"
import type { ExploreOptions } from "./explore.ts"
import { explore, formatExplore } from "./explore.ts"
import { toPromise } from "./internal/runner.ts"
import type { Sweepable } from "./Subject.ts"
import { formatSweep } from "./SweepReport.ts"
import { type SweepOptions, sweep } from "./sweep.ts"

/**
 * What a matcher of Vitest gives back.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface MatcherResult {
  readonly pass: boolean
  readonly message: () => string
}

const isSweepable = (received: unknown): received is Sweepable =>
  Effect.isEffect(received) || (typeof received === "object" && received !== null && "setup" in received)

const needsProgram = (received: unknown): Effect.Effect<Sweepable> =>
  isSweepable(received)
    ? Effect.succeed(received)
    : Effect.die(new TypeError("expected an Effect, or a subject with a setup"))

/**
 * The matchers, for `expect.extend`.
 *
 * | matcher | passes when |
 * | --- | --- |
 * | `await expect(program).toSurviveSweep(options?)` | `sweep` finds nothing |
 * | `await expect(program).toSurviveSchedules(options?)` | `explore` finds nothing |
 * | `expect(routes).toBeSwept(options?)` | a sweep has covered every route that is marked cancellable; with `clean`, and has found nothing |
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { expect } from "vitest"
 * import { matchers } from "@curfew/testing/vitest"
 *
 * expect.extend(matchers)
 * await expect(Effect.sleep("1 second")).toSurviveSweep({ name: "a nap" })
 * expect([{ name: "a nap", cancellable: true }]).toBeSwept()
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const matchers = {
  toSurviveSweep: (received: unknown, options?: SweepOptions): Promise<MatcherResult> =>
    toPromise(
      Effect.map(
        Effect.flatMap(needsProgram(received), (program) => sweep(program, options)),
        (report) => ({ pass: report.ok, message: () => formatSweep(report) })
      )
    ),
  toSurviveSchedules: (received: unknown, options?: ExploreOptions): Promise<MatcherResult> =>
    toPromise(
      Effect.map(
        Effect.flatMap(needsProgram(received), (program) => explore(program, options)),
        (report) => ({ pass: report.ok, message: () => formatExplore(report) })
      )
    ),
  toBeSwept: (
    received: Iterable<SweepableRoute>,
    options?: { readonly clean?: boolean | undefined }
  ): MatcherResult => {
    const routes = [...received]
    const names = unswept(routes)
    const broken = options?.clean === true ? unclean(routes) : []
    return {
      pass: names.length + broken.length === 0,
      message: () =>
        names.length > 0
          ? `marked cancellable, and covered by no sweep: ${names.join(", ")}`
          : broken.length > 0
            ? `marked cancellable, and broken by a cancel: ${broken.join(", ")}`
            : "every route that is marked cancellable has been swept"
    }
  }
}

declare module "vitest" {
  // The type parameters have to be declared as Vitest declares them.
  interface Matchers<R extends void | Promise<void> = void | Promise<void>, T = unknown> {
    readonly toSurviveSweep: (options?: SweepOptions) => Promise<void>
    readonly toSurviveSchedules: (options?: ExploreOptions) => Promise<void>
    readonly toBeSwept: (options?: {
      readonly clean?: boolean | undefined
    }) => T extends Iterable<SweepableRoute> ? R : never
  }
}
