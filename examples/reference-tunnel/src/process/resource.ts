import { bounded } from "@curfew/scope"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Process } from "./Process.ts"

/**
 * A resource whose release has a limit and is told of, so that the timeline shows what closed, in which order, and
 * how long it took.
 */
export const resource = <A, E, R>(
  name: string,
  acquire: Effect.Effect<A, E, R>,
  release: (a: A) => Effect.Effect<unknown>,
  within: Duration.Input = "2 seconds"
): Effect.Effect<A, E, R | Process | Scope.Scope> =>
  Effect.flatMap(Process, ({ now, say }) =>
    Effect.acquireRelease(acquire, (a) =>
      Effect.suspend(() => {
        const began = now()
        return Effect.map(bounded(release(a), { within, name }), (done) =>
          done._tag === "Some"
            ? say({ mark: "cleanup", text: `closed ${name}`, took: now() - began })
            : say({ mark: "fault", text: `gave up closing ${name}`, took: now() - began })
        )
      })
    )
  )
