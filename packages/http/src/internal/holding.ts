/**
 * An edge that no Effect program surrounds: the program is here.
 *
 * Invariants
 * 1. The edge lives in a `Shutdown.run` of its own, and is there when `hold` returns.
 * 2. Each call of `shutdown` is a signal to that: the first begins, a further one moves on. Disposing only begins.
 * 3. The report comes within drain and force, and everyone who asks gets the same.
 */
import type { Server } from "node:http"
import type { Owner } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import { type Report, Shutdown, type Signals } from "@curfew/shutdown"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { EdgeOptions } from "../EdgeOptions.ts"
import { type EffectEdge, make, type NodeServer } from "../NodeEdge.ts"
import type { EndOptions } from "../serve.ts"
import { deferred, mapped, toPromise } from "./bridge.ts"

export interface Held {
  readonly edge: EffectEdge
  readonly attach: (server: NodeServer) => void
  readonly shutdown: () => Promise<Report.Report>
  readonly dispose: () => Promise<void>
  readonly ended: Promise<Report.Report>
}

export const hold = (options: EdgeOptions & EndOptions): Held => {
  const { drain, force, name = "http", onStopped } = options
  let signal: ((name: string) => void) | undefined
  let begun = false
  const signals: Signals = {
    subscribe: (listener) => {
      signal = (name) => {
        begun = true
        listener(name)
      }
      const forget = options.signals?.subscribe(signal)
      return () => forget?.()
    }
  }
  let opened:
    | { readonly edge: EffectEdge; readonly context: Context.Context<Scope.Scope | Owner> }
    | undefined
  const main = Effect.scoped(
    Effect.gen(function* () {
      const edge = yield* make(options)
      opened = { edge, context: yield* Effect.context<Scope.Scope | Owner>() }
      return yield* Effect.never
    })
  )
  const run = Shutdown.run(main, { name, drain, force, signals })
  const ended = toPromise(
    Child.startUnsafe(
      Context.empty(),
      Effect.map(run, ({ report }) => report)
    )
  )
  if (opened === undefined) {
    throw new Error("The edge was made deep inside other starts; make it outside of any handler.")
  }
  const { context, edge } = opened
  let calls = 0
  const begin = (): void => {
    calls++
    // Each by a name of its own: what has the same name in a short time is taken for one signal, delivered twice.
    signal?.(calls === 1 ? "shutdown" : `shutdown ${calls}`)
  }
  return {
    edge,
    attach: (server) => {
      Child.startUnsafe(context, edge.attach(server, { drain, onStopped, quiet: onStopped !== undefined }))
    },
    shutdown: () => {
      begin()
      return ended
    },
    dispose: () => {
      if (!begun) begin()
      return mapped(ended, () => undefined)
    },
    ended
  }
}

export const listen = <A>(
  held: Held,
  server: Server,
  where: { readonly port?: number | undefined; readonly host?: string | undefined },
  made: (port: number) => A
): Promise<A> => {
  const { promise, reject, resolve } = deferred<A>()
  const failed = (error: Error): void => {
    // Nothing was served: what was made is given back, and the reason goes to whoever asked.
    mapped(held.dispose(), () => reject(error))
  }
  server.once("error", failed)
  server.listen({ port: where.port ?? 0, host: where.host }, () => {
    server.off("error", failed)
    const address = server.address()
    resolve(made(typeof address === "object" && address !== null ? address.port : 0))
  })
  return promise
}
