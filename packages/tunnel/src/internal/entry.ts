/**
 * The way into a network server: who opens a tunnel is asked for, named, and let in or refused.
 *
 * **Invariants**
 * 1. Nothing has been sent to the opener before it is let in, so a refusal is the only thing it gets.
 * 2. An opener that leaves interrupts the hooks, and gets nothing.
 * 3. Without hooks an opener is let in at once, in the turn in which it came.
 */
import { status as Code, type ServerDuplexStream } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { AccessRefused, Authenticate, TunnelOpening, TunnelOrigin } from "../TunnelAuth.ts"
import type { TunnelKind } from "../TunnelEvent.ts"
import type { TunnelOptions } from "../TunnelOptions.ts"
import { asked } from "./gate.ts"
import { security } from "./grpcCarrier.ts"
import { limitsOf } from "./limits.ts"
import type { RpcStatus } from "./rpcStatus.ts"

type OuterCall = ServerDuplexStream<Buffer, Buffer>

export const refuse = (call: OuterCall, code: number, details: string): void => {
  call.emit("error", { code, details })
}

/** Who has been let in. */
export interface Entrant<I> {
  readonly origin: TunnelOrigin<I>
  readonly key: string
}

interface Hooks<I> extends TunnelOptions {
  readonly authenticate?: Authenticate<I>
  readonly affinityKey?: (tunnel: TunnelOrigin<I>) => string | Effect.Effect<string, AccessRefused>
}

const openingOf = (call: OuterCall, kind: TunnelKind): TunnelOpening => ({
  kind,
  peer: call.getPeer(),
  metadata: call.metadata,
  ...security(call)
})

const questions = <I>(
  opening: TunnelOpening,
  { affinityKey, authenticate, ...options }: Hooks<I>
): Effect.Effect<Entrant<I>, RpcStatus> => {
  const { authTimeout } = limitsOf(options)
  const subject = `the ${opening.kind} tunnel of ${opening.peer}`
  const identified =
    authenticate === undefined
      ? Effect.succeed(undefined as I)
      : asked("authenticate", subject, authTimeout, () => authenticate(opening))
  return Effect.flatMap(identified, (identity) => {
    const origin: TunnelOrigin<I> = { ...opening, identity }
    if (opening.kind === "forward" || affinityKey === undefined) return Effect.succeed({ origin, key: "" })
    const named = asked("name", subject, authTimeout, () => {
      const key = affinityKey(origin)
      return typeof key === "string" ? Effect.succeed(key) : key
    })
    return Effect.map(named, (key) => ({ origin, key }))
  })
}

const left = (call: OuterCall): Effect.Effect<undefined> =>
  Effect.callback<undefined>((resume) => {
    if (call.cancelled) return resume(Effect.succeed(undefined))
    const leave = () => resume(Effect.succeed(undefined))
    call.once("cancelled", leave)
    return Effect.sync(() => call.removeListener("cancelled", leave))
  })

/** Gives who has been let in; `undefined` when it was refused or has left. */
export const admit = <I>(
  call: OuterCall,
  kind: TunnelKind,
  options: Hooks<I>
): Effect.Effect<Entrant<I> | undefined> =>
  Effect.suspend(() => {
    const answered = Effect.catch(questions(openingOf(call, kind), options), ({ code, details }) =>
      Effect.sync(() => refuse(call, code, details))
    )
    const { affinityKey, authenticate } = options
    if (authenticate === undefined && affinityKey === undefined) return answered
    return Effect.onInterrupt(Effect.raceFirst(answered, left(call)), () =>
      Effect.sync(() => {
        if (!call.cancelled) refuse(call, Code.UNAVAILABLE, "The server is shutting down")
      })
    )
  }) as Effect.Effect<Entrant<I> | undefined>
