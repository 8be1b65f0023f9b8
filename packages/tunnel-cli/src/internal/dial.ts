/**
 * Staying connected: opens a tunnel, waits for its end, and opens it again, at growing intervals while that fails.
 *
 * **Invariants**
 * 1. One tunnel at a time, and each is closed before the next is tried.
 * 2. The wait grows to half a minute, is never twice the same for two agents, and starts small after each success.
 * 3. A refusal that no repetition can mend (a wrong token, a forbidden key) is logged as a warning, and tried on: the
 *    gateway may be told otherwise meanwhile.
 */
import type { TunnelHandle, TunnelOpenError } from "@curfew/tunnel"
import { status as Code } from "@grpc/grpc-js"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type { Log } from "./log.ts"
import type { Address } from "./values.ts"

const first = 250
const longest = 30_000

const waitAfter = (failures: number): Effect.Effect<Duration.Duration> =>
  Effect.map(Random.next, (part) =>
    Duration.millis(Math.min(longest, first * 2 ** Math.min(failures, 10)) * (0.5 + part / 2))
  )

const sentenceOf = ({ code, details }: TunnelOpenError, at: Address): string => {
  if (code === Code.UNIMPLEMENTED && /not implemented/i.test(details))
    return `${at.text} is no tunnel server: ${details}`
  return code === Code.UNAVAILABLE && /^(No connection established|Name resolution failed)/.test(details)
    ? `no gateway can be reached at ${at.text}`
    : details
}

export const stayConnected = (options: {
  readonly at: Address
  readonly log: Log
  readonly open: Effect.Effect<TunnelHandle, TunnelOpenError, Scope.Scope>
  readonly whileOpen: (handle: TunnelHandle) => Effect.Effect<void, never, Scope.Scope>
}): Effect.Effect<never> =>
  Effect.gen(function* () {
    const { at, log, open, whileOpen } = options
    let failures = 0
    const once = Effect.scoped(
      Effect.gen(function* () {
        const handle = yield* open
        failures = 0
        yield* whileOpen(handle)
        yield* handle.closed
      })
    )
    const attempt = Effect.catch(once, (error) =>
      Effect.sync(() => {
        log.warn("not connected", {
          gateway: at.text,
          code: Code[error.code] ?? "",
          reason: sentenceOf(error, at)
        })
      })
    )
    const again = Effect.flatMap(
      Effect.suspend(() => waitAfter(failures++)),
      (wait) => {
        log.debug("connecting again", { gateway: at.text, ms: Math.round(Duration.toMillis(wait)) })
        return Effect.sleep(wait)
      }
    )
    return yield* Effect.forever(Effect.andThen(attempt, again))
  })
