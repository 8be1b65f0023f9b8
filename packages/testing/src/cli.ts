#!/usr/bin/env node
/**
 * `curfew-testing sweep ./handler.ts`: sweeps the exported programs of a module without a test file.
 *
 * What is swept is the default export, or each export when there is no default: an Effect, or a `Subject`
 * (`{ name?, setup }`, see `sweep`). When something is broken, it writes a page with the timelines.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { command } from "./internal/command.ts"
import { start } from "./internal/runner.ts"

const main = command(process.argv.slice(2)).pipe(
  Effect.catchCause((cause) =>
    Effect.sync(() => {
      process.stderr.write(`${Cause.pretty(cause)}\n`)
      return 2
    })
  ),
  Effect.tap((code) =>
    Effect.sync(() => {
      process.exitCode = code
    })
  )
)

start(main, Context.empty())
