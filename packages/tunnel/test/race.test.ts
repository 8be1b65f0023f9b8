import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { openForward, type TunnelEvent } from "../src/index.ts"
import { audited, type Findings } from "./support/audit.ts"
import { EchoClient } from "./support/echo.ts"
import { addFireAndForget } from "./support/fireAndForget.ts"
import { kinds, listen, tunnelPair } from "./support/network.ts"
import { type Race, runRace, type Shape, type Step, shapes, steppedHandlers, steps } from "./support/race.ts"

const { status: Code } = grpc

const races = (shape: Shape): ReadonlyArray<Race> => [
  ...steps.map((cancelAt) => ({ shape, cancelAt, closeAt: undefined })),
  ...steps.map((closeAt) => ({ shape, cancelAt: undefined, closeAt })),
  ...steps.flatMap((cancelAt) => steps.map((closeAt) => ({ shape, cancelAt, closeAt })))
]

const title = ({ cancelAt, closeAt }: Race): string =>
  [cancelAt && `cancel before T${cancelAt}`, closeAt && `loss before T${closeAt}`].filter(Boolean).join(", ")

/** Waits until the serving end has seen the stream's end or the tunnel's. */
const serverNoticed = (events: ReadonlyArray<TunnelEvent>) =>
  Effect.repeat(Effect.yieldNow, {
    until: () =>
      events.some(
        (event) =>
          (event._tag === "StreamCancelled" || event._tag === "StreamClosed") && event.side === "server"
      )
  })

/** The assertions that every engine is held to. */
const leftBehind = ({ errorLogs, liveFibers }: Findings) => ({ errorLogs, liveFibers })
const nothing = { errorLogs: [], liveFibers: 0 }

/** What the client may see: its own cancel, the loss, or the answer if it was faster than both. */
const allowed = ({ cancelAt, closeAt }: Race): ReadonlyArray<number> => [
  Code.OK,
  ...(cancelAt === undefined ? [] : [Code.CANCELLED]),
  ...(closeAt === undefined ? [] : [Code.UNAVAILABLE])
]

describe.each(kinds)("over a %s tunnel, a stock handler", (kind) => {
  describe.each(shapes)("of a %s call", (shape) => {
    for (const race of races(shape)) {
      for (const settle of [false, true]) {
        it.live(
          `leaves nothing behind: ${title(race)}, ${settle ? "noticed first" : "all in one turn"}`,
          () =>
            Effect.gen(function* () {
              const [[code, events], findings] = yield* audited(
                Effect.scoped(
                  Effect.gen(function* () {
                    const handler = steppedHandlers()
                    const pair = yield* tunnelPair(kind, { handlers: handler.handlers })
                    const lose = (): void => pair.listening.server.forceShutdown()
                    const noticed = settle ? serverNoticed(pair.events) : undefined
                    const seen = yield* runRace(race, pair.client, handler, lose, noticed)
                    return [seen, pair.events] as const
                  })
                )
              )
              expect(leftBehind(findings)).toEqual(nothing)
              expect(allowed(race)).toContain(code)
              const count = (tag: TunnelEvent["_tag"]): number =>
                events.filter((event) => event._tag === tag).length
              expect(count("StreamClosed")).toBe(count("StreamOpened"))
              expect(count("TunnelClosed")).toBe(count("TunnelOpened"))
            })
        )
      }
    }
  })
})

describe("the same assertions find a server that starts its writes and forgets them,", () => {
  const closes: ReadonlyArray<Step> = [2, 3, 4, 5, 6]
  it.live.each(shapes.flatMap((shape) => closes.map((closeAt) => [shape, closeAt] as const)))(
    "%s, loss before T%d",
    ([shape, closeAt]) =>
      Effect.gen(function* () {
        const [, findings] = yield* audited(
          Effect.scoped(
            Effect.gen(function* () {
              const handler = steppedHandlers()
              const context = yield* Effect.context<never>()
              const { address, server } = yield* listen(addFireAndForget(handler.handlers, context))
              const channel = yield* openForward({ address, credentials: grpc.credentials.createInsecure() })
              const client = channel.client(EchoClient)
              const lose = (): void => server.forceShutdown()
              yield* runRace({ shape, cancelAt: undefined, closeAt }, client, handler, lose, channel.closed)
            })
          )
        )
        expect(leftBehind(findings)).not.toEqual(nothing)
      })
  )
})
