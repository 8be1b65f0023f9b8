import type { EventEmitter } from "node:events"
import {
  formatGrpcMatrix,
  type GrpcMatrixCall,
  type GrpcMatrixEndpoint,
  type GrpcOutcome,
  grpcDisconnectMatrix
} from "@curfew/testing/grpcDisconnects"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { drivers, type Make, made } from "./support/matrix.ts"

const tables: Array<string> = []

describe.each(drivers())("L39, L40, L41, L48: the disconnect matrix over $name", (driver) => {
  const outcomes: Array<GrpcOutcome> = []

  // Not `test.each`: Vitest cuts long values in titles.
  for (const { name, run } of grpcDisconnectMatrix(driver)) {
    test(name, async () => {
      outcomes.push(await Effect.runPromise(run))
    })
  }

  test("is a table", () => {
    tables.push(`## Over ${driver.name}\n\n${formatGrpcMatrix(outcomes)}\n`)
  })
})

const head = `# What a disconnect does

Each row is a way for a call to end before, beside or after its answer; each column a handler with another mark. A cell
says what became of the handler: *runs on* is told that its client has gone and runs to its end, *interrupted* and *after
the grace* end with the reason behind the colon, *ends* is an ordinary end that nobody took for a disconnect. *Stock* is a
callback handler of grpc-js, which is never interrupted: its cells list the events that it got. The last column is the
client's status. Response streams without a mark are interrupted, requests without a mark are not. The tables are written
by the test of the disconnect matrix in \`packages/grpc\`, which checks each cell and what is left after it:
\`npx vitest run packages/grpc/test/disconnects.test.ts -u\`.
`

test("docs/disconnects.md has the tables as they came out", async () => {
  await expect([head, ...tables].join("\n")).toMatchFileSnapshot("../../../docs/disconnects.md")
})

describe("the matrix finds a planted fault", () => {
  /** The problems of a cell, served wrongly. */
  const problems = async (
    make: Make,
    cell: {
      readonly departure: string
      readonly kind: string
      readonly column: string
      readonly over?: string
    }
  ): Promise<string> => {
    const driver = drivers(make).find(({ name }) => name === (cell.over ?? "grpc-js"))
    if (driver === undefined) throw new Error("no driver")
    const found = grpcDisconnectMatrix(driver, { patience: "300 millis" }).find(
      ({ column, departure, kind }) =>
        departure === cell.departure && kind === cell.kind && column === cell.column
    )
    if (found === undefined) throw new Error("no cell")
    return (await Effect.runPromise(Effect.flip(found.run))).problems.join("; ")
  }
  const running = "cancelled while its handler runs"
  const as =
    (column: GrpcMatrixEndpoint["column"]): Make =>
    (endpoint, calls) =>
      made({ ...endpoint, column }, calls)
  const seeing =
    (see: (call: GrpcMatrixCall) => GrpcMatrixCall): Make =>
    (endpoint, calls) =>
      made(
        {
          ...endpoint,
          answer: (call) => endpoint.answer(see(call)),
          answers: (call) => endpoint.answers(see(call))
        },
        calls
      )

  test.each(["grpc-js", "a tunnel"])("L39 over %s: a policy that is not heeded", async (over) => {
    const cell = { departure: running, kind: "unary", over }
    expect(await problems(as("unmarked"), { ...cell, column: "cancellable" })).toContain(
      "the interrupt of the handler does not come"
    )
    expect(await problems(as("cancellable"), { ...cell, column: "unmarked" })).toContain(
      "the handler ended when its client had left"
    )
    expect(await problems(as("cancellable"), { ...cell, column: "grace" })).toContain(
      "the handler ended before the grace did"
    )
  })

  test("L40: the event that grpc-js emits after each answer, taken for the client's leaving", async () => {
    const byEvent = seeing((call) => ({
      ...call,
      peerGone: Effect.callback((resume) => {
        call.raw.on("cancelled", () => resume(Effect.succeed("ClientGone")))
      })
    }))
    expect(
      await problems(byEvent, {
        departure: "half-closed: no more requests",
        kind: "bidi",
        column: "cancellable"
      })
    ).toContain('the handler was told of "ClientGone"')
  })

  test.each(["grpc-js", "a tunnel"])(
    "L40 over %s: requests that end well when they are cut off",
    async (over) => {
      const ending = seeing((call) => ({
        ...call,
        requests: call.requests && Stream.catch(call.requests, () => Stream.empty)
      }))
      expect(
        await problems(ending, { departure: running, kind: "clientStream", column: "unmarked", over })
      ).toContain("requests that were cut off ended as if they were complete")
    }
  )

  test("L48: CANCELLED in place of UNAVAILABLE when the server stops by force", async () => {
    const recoded: Make = (endpoint, calls) =>
      Effect.map(made(endpoint, calls), (service) => {
        const { implementation } = service
        const unary = implementation["unary"] as unknown as (
          call: EventEmitter,
          reply: grpc.sendUnaryData<Buffer>
        ) => void
        const wrong = (call: EventEmitter, reply: grpc.sendUnaryData<Buffer>): void =>
          unary(call, (error, ...rest) =>
            reply(error === null ? null : { ...error, code: grpc.status.CANCELLED }, ...rest)
          )
        // In place: the server knows the services that were made here by identity.
        Object.assign(implementation, { unary: wrong })
        return service
      })
    expect(
      await problems(recoded, { departure: "server stops by force", kind: "unary", column: "unmarked" })
    ).toContain("the client got CANCELLED (The server is shutting down), not UNAVAILABLE")
  })

  test("a machine that stops for a moment after the server knew is no fault", async () => {
    const stopping = seeing((call) => ({
      ...call,
      peerGone: Effect.tap(call.peerGone, () =>
        Effect.sync(() => {
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
        })
      )
    }))
    const [outcome] = await Effect.runPromise(
      Effect.forEach(
        grpcDisconnectMatrix(drivers(stopping)[1] as ReturnType<typeof drivers>[number]).filter(
          ({ column, departure, kind }) => departure === running && kind === "bidi" && column === "grace"
        ),
        ({ run }) => run
      )
    )
    expect(outcome?.handler).toBe("after the grace: ClientGone")
  })

  test("a wrong reason, a deaf handler, and what is left behind", async () => {
    const cell = { departure: running, kind: "unary", column: "cancellable" }
    expect(
      await problems(
        seeing((call) => ({ ...call, reason: Effect.succeed("Unknown") })),
        cell
      )
    ).toContain("the handler was interrupted for Unknown, not for ClientGone")
    expect(
      await problems(
        seeing((call) => ({ ...call, peerGone: Effect.never })),
        cell
      )
    ).toContain("the news that the client has gone does not come")
    const leaking: Make = (endpoint, calls) =>
      made(
        {
          ...endpoint,
          answer: (call) => Effect.andThen(Effect.forkDetach(Effect.never), endpoint.answer(call))
        },
        calls
      )
    expect(await problems(leaking, cell)).toContain("1 fiber is left")
    let timer: ReturnType<typeof setInterval> | undefined
    const ticking = seeing((call) => {
      timer = setInterval(() => undefined, 60_000)
      call.raw.on("drain", () => undefined)
      return call
    })
    const found = await problems(ticking, cell)
    clearInterval(timer)
    expect(found).toContain("1 more Timeout than before")
  })
})
