/**
 * The program behind `npm start`: shows `curfew-tunnel` at work, with every part a process of its own.
 *
 * A service, a gateway, and an agent between them; a call through all three, a call that is left in the middle and stops
 * the service's search, a call to an agent that is not there; then the status. `--once` ends after that, and its last
 * line is JSON.
 */
import type { GrpcError } from "@curfew/grpc"
import { exitCode, runMain } from "@curfew/shutdown/Node"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { callsTo } from "./calls.ts"
import { type Command, type Ended, start } from "./Program.ts"

const words = process.argv.slice(2)
const help = `Shows curfew-tunnel at work: a service, a gateway, an agent, and calls through them.

  npm start               run it, show it, stay up; Ctrl-C ends it in order
  npm start -- --once     run it and end; the last line is JSON, the exit code tells whether all is well
  npm run tunnel -- ...   curfew-tunnel itself, from this repository
  npm run reference       the timeline of a client that leaves: who stopped, in which order, and that nothing stays`

const say = (line: string): Effect.Effect<void> => Effect.sync(() => console.log(line))
const step = (what: string): Effect.Effect<void> => say(`\n── ${what}`)

const run = (name: string, command: Command) =>
  Effect.andThen(
    say(`$ ${command.join(" ")}`),
    start(name, command, (line) => console.log(line))
  )

interface Summary {
  readonly ok: boolean
  readonly answered: boolean
  readonly stoppedAtTheService: boolean
  readonly refused: string
  readonly calls: unknown
  readonly exitCodes: Readonly<Record<string, number>>
}

const demonstration = (once: boolean): Effect.Effect<Summary | undefined, Ended | GrpcError, Scope.Scope> =>
  Effect.gen(function* () {
    yield* step("a service that nobody outside can reach")
    const service = yield* run("service", ["hash-finder", "--port=0"])
    const [, backend = ""] = yield* service.says(/listens on (\S+)/)

    yield* step("a gateway that both sides can reach")
    const gateway = yield* run("gateway", [
      "curfew-tunnel",
      "gateway",
      "--listen=127.0.0.1:0",
      "--expose=127.0.0.1:0",
      "--admin=127.0.0.1:0",
      "--default-key=home"
    ])
    const [, admin = "", listen = "", expose = ""] = yield* gateway.says(
      /gateway ready admin=(\S+) listen=(\S+) expose=(\S+)/
    )

    yield* step("an agent beside the service, which dials out")
    const agent = yield* run("agent", [
      "curfew-tunnel",
      "agent",
      `--gateway=${listen}`,
      "--key=home",
      `--backend=${backend}`
    ])
    yield* gateway.says(/tunnel opened key=home/)

    const calls = yield* callsTo(expose)
    yield* step("a call through all three")
    const answer = yield* Effect.result(calls.answered)
    yield* say(`client   | ${answer._tag === "Success" ? answer.success : answer.failure.message}`)

    yield* step("a call without an end, left in the middle")
    const left = yield* Effect.result(calls.left)
    yield* say(`client   | ${left._tag === "Success" ? left.success : left.failure.message}`)
    const stopped = yield* service.says(/FindEach .* cancelled: .*; stopped after \d+ hashes/)

    yield* step("a call to an agent that is not there")
    const refused = yield* calls.refused
    yield* say(`client   | ${refused}`)

    yield* step("what the gateway says of it")
    const status = yield* run("status", ["curfew-tunnel", "status", `--admin=${admin}`, "--once"])
    yield* status.end
    const [, json = "{}"] = yield* Effect.flatMap(
      start("", ["curfew-tunnel", "status", `--admin=${admin}`, "--json"], () => undefined),
      (asked) => asked.says(/^(\{.*\})$/)
    )
    if (!once) {
      yield* step("it stays up: try it from another terminal, and end it with Ctrl-C")
      yield* say(
        [
          `  npm run -w @curfew/example-hash-finder client -- --server=${expose}      (Ctrl-C leaves)`,
          `  npm run tunnel -- status --admin=${admin}`,
          `  curl http://${admin}/metrics`
        ].join("\n")
      )
      return yield* Effect.never
    }
    yield* step("the end, in order")
    const exitCodes = { agent: yield* agent.stop, gateway: yield* gateway.stop, service: yield* service.stop }
    const now = JSON.parse(json) as { readonly calls: Readonly<Record<string, unknown>> }
    const { cancelled, cancelledBy, completed, failed, inFlight, refused: absent, started } = now.calls
    const answered = answer._tag === "Success"
    const ok =
      answered &&
      left._tag === "Success" &&
      refused.startsWith("UNAVAILABLE: No agent") &&
      started === 2 &&
      completed === 1 &&
      cancelled === 1 &&
      inFlight === 0 &&
      Object.values(exitCodes).every((code) => code === 0)
    return {
      ok,
      answered,
      stoppedAtTheService: stopped.length > 0,
      refused,
      calls: { started, completed, failed, cancelled, cancelledBy, inFlight, refused: absent },
      exitCodes
    }
  })

if (words.includes("--help")) console.log(help)
else if (words.some((word) => word !== "--once")) {
  console.error(`There is no flag "${words.find((word) => word !== "--once")}"; use --once or --help.`)
  process.exitCode = 2
} else {
  const main = Effect.scoped(demonstration(words.includes("--once"))).pipe(
    Effect.catch((ended) =>
      Effect.sync((): Summary | undefined => {
        console.error(ended.message)
        return undefined
      })
    )
  )
  runMain(main, {
    name: "demonstration",
    drain: 0,
    force: "20 seconds",
    print: () => undefined,
    exitCode: (ended) => {
      const exit = Option.getOrUndefined(ended.exit)
      if (exit === undefined || !Exit.isSuccess(exit)) return exitCode(ended)
      if (exit.value !== undefined) console.log(JSON.stringify(exit.value))
      return exit.value?.ok === true ? 0 : 1
    }
  })
}
