/**
 * The seven steps at which a call over a tunnel can meet its own end: T1 request, T2 handler starts, T3 client
 * cancels, T4 stream closes, T5 handler completes, T6 response write, T7 close write. The cancel and the loss of the
 * outer stream are put before any step; what a handler of its own accord does are T5 to T7.
 */
import type * as grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { type EchoClient, type Handlers, unary } from "./echo.ts"
import { statusOf } from "./engines.ts"

export const steps = [2, 3, 4, 5, 6, 7] as const
export type Step = (typeof steps)[number]
export const shapes = ["unary", "streaming"] as const
export type Shape = (typeof shapes)[number]

export interface Race {
  readonly shape: Shape
  /** The client cancels before this step. */
  readonly cancelAt: Step | undefined
  /** The outer stream is lost before this step. */
  readonly closeAt: Step | undefined
}

/** A handler that does nothing by itself: the test takes its steps. */
export const steppedHandlers = () => {
  const started = Deferred.makeUnsafe<void>()
  let act: (step: Step) => void = () => undefined
  const begin = (steps: (step: Step) => void): void => {
    act = steps
    Deferred.doneUnsafe(started, Effect.void)
  }
  const handlers: Partial<Handlers> = {
    Unary: (call, callback) =>
      begin((step) => {
        if (step === 6) callback(null, Buffer.from(call.request))
        if (step === 7) callback(null, Buffer.from("again"))
      }),
    Bidi: (call) =>
      begin((step) => {
        if (step === 6) call.write(Buffer.from("answer"))
        if (step === 7) call.end()
      })
  }
  return { handlers, started: Deferred.await(started), take: (step: Step): void => act(step) }
}

/**
 * Runs one race and gives the code that the client saw. `settle` waits after the cancel or the loss until the
 * serving end has noticed; without it everything happens in one turn.
 */
export const runRace = (
  race: Race,
  client: EchoClient,
  handler: ReturnType<typeof steppedHandlers>,
  lose: () => void,
  settle: Effect.Effect<unknown> | undefined
): Effect.Effect<number> =>
  Effect.gen(function* () {
    let call: grpc.ClientUnaryCall | grpc.ClientDuplexStream<Buffer, Buffer> | undefined
    let outcome: Promise<{ readonly code: number }>
    if (race.shape === "unary") {
      outcome = unary(client, Buffer.from("request"), {
        onCall: (started) => {
          call = started
        }
      })
    } else {
      const stream = client.Bidi()
      stream.on("error", () => undefined)
      stream.on("data", () => undefined)
      stream.write(Buffer.from("request"))
      call = stream
      outcome = statusOf(stream)
    }
    yield* handler.started
    for (const step of steps) {
      if (race.cancelAt === step) call?.cancel()
      if (race.closeAt === step) lose()
      if ((race.cancelAt === step || race.closeAt === step) && settle !== undefined) yield* settle
      handler.take(step)
    }
    return (yield* Effect.promise(() => outcome)).code
  })
