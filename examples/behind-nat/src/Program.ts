/** A program of the demonstration, as a process of its own whose lines are shown under its name. */
import { type ChildProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { moveOnAfter } from "@curfew/scope"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

export interface Program {
  /** Waits for a line, also one that has come. It fails when the program ends without it. */
  readonly says: (pattern: RegExp) => Effect.Effect<RegExpExecArray, Ended>
  readonly end: Effect.Effect<number>
  /** Asks it to end in order, and waits. */
  readonly stop: Effect.Effect<number>
}

/** A program has ended and never said what was waited for. */
export class Ended extends Error {}

const path = (relative: string): string => fileURLToPath(new URL(`../../../${relative}`, import.meta.url))

/** A pipe that nothing is written to: it closes with the demonstration, a kill included, and ends the program. */
const leash = new URL("./leash.ts", import.meta.url).href

const sources = {
  "curfew-tunnel": path("packages/tunnel-cli/src/cli.ts"),
  "hash-finder": path("examples/hash-finder/src/server.ts")
}

export type Command = readonly [program: keyof typeof sources, ...ReadonlyArray<string>]

const launch = ([program, ...words]: Command): ChildProcess =>
  spawn(process.execPath, ["-C", "@curfew/source", "--import", leash, sources[program], ...words], {
    stdio: ["pipe", "pipe", "pipe"],
    // A Ctrl-C reaches the demonstration alone: two signals would be one too many for an end in order.
    detached: true
  })

/** Starts a program; it ends with the scope. */
export const start = (
  name: string,
  command: Command,
  show: (line: string) => void
): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const waiting = new Set<() => void>()
    const ended = Deferred.makeUnsafe<number>()
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => launch(command)),
      (running) =>
        Effect.andThen(
          Effect.sync(() => running.kill("SIGTERM")),
          Effect.flatMap(moveOnAfter("5 seconds")(Deferred.await(ended)), (code) =>
            Effect.sync(() => {
              if (code._tag === "None") running.kill("SIGKILL")
            })
          )
        )
    )
    const heard = (line: string): void => {
      lines.push(line)
      show(`${name.padEnd(8)} | ${line}`)
      for (const wake of [...waiting]) wake()
    }
    for (const stream of [child.stdout, child.stderr]) {
      if (stream !== null) createInterface(stream).on("line", heard)
    }
    child.on("close", (code, signal) => {
      Deferred.doneUnsafe(ended, Effect.succeed(code ?? (signal === null ? 1 : 128)))
      for (const wake of [...waiting]) wake()
    })
    const end = Deferred.await(ended)
    const says = (pattern: RegExp): Effect.Effect<RegExpExecArray, Ended> =>
      Effect.callback((resume) => {
        const look = (): void => {
          for (const line of lines) {
            const found = pattern.exec(line)
            if (found === null) continue
            waiting.delete(look)
            resume(Effect.succeed(found))
            return
          }
          if (child.exitCode === null && child.signalCode === null) return
          waiting.delete(look)
          resume(Effect.fail(new Ended(`The ${name} has ended: ${lines.at(-1) ?? "it said nothing"}`)))
        }
        waiting.add(look)
        look()
        return Effect.sync(() => waiting.delete(look))
      })
    const stop = Effect.andThen(
      Effect.sync(() => child.kill("SIGTERM")),
      end
    )
    return { says, end, stop }
  })
