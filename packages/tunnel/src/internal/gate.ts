/**
 * Runs the hooks that let tunnels and calls in.
 *
 * **Invariants**
 * 1. A hook gives a value or a status; what it throws, dies of or takes too long for is a status as well.
 * 2. A defect is logged and said to the peer without its text.
 * 3. An interrupt from outside stays one: who left gets no status.
 */
import { status as Code } from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { AccessRefused } from "../TunnelAuth.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"

/** Asks a hook within the limit. */
export const asked = <A>(
  what: "authenticate" | "authorize" | "name",
  subject: string,
  limit: Duration.Duration,
  hook: () => Effect.Effect<A, AccessRefused>
): Effect.Effect<A, RpcStatus> =>
  Effect.suspend(hook).pipe(
    Effect.mapError(({ code, details }) =>
      makeStatus(code === Code.OK ? Code.PERMISSION_DENIED : code, details)
    ),
    Effect.timeoutOrElse({
      duration: limit,
      orElse: () =>
        Effect.fail(makeStatus(Code.UNAVAILABLE, `The server could not ${what} this in time; try again`))
    }),
    Effect.catchCause((cause) => {
      if (!Cause.hasDies(cause)) return Effect.failCause(cause)
      return Effect.andThen(
        Effect.logError(`The ${what} hook died of ${subject}.`, cause),
        Effect.fail(makeStatus(Code.INTERNAL, `The server could not ${what} this: its check failed`))
      )
    })
  )
