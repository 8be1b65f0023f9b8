import { failureOf, type Owner } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Report from "./Report.ts"
import * as Shutdown from "./Shutdown.ts"
import type { Signals } from "./Signals.ts"

/**
 * The signals of this process. While it is subscribed to, the process does not end by them on its own.
 *
 * **Example**
 *
 * ```ts
 * import { processSignals } from "@curfew/shutdown/Node"
 *
 * const before = process.listenerCount("SIGTERM")
 * const unsubscribe = processSignals().subscribe(() => {})
 * process.listenerCount("SIGTERM") - before // => 1
 * unsubscribe()
 * process.listenerCount("SIGTERM") - before // => 0
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const processSignals = (
  names: ReadonlyArray<"SIGINT" | "SIGTERM" | "SIGHUP" | "SIGQUIT"> = ["SIGINT", "SIGTERM"]
): Signals => ({
  subscribe: (listener) => {
    for (const name of names) process.on(name, listener)
    return () => {
      for (const name of names) process.off(name, listener)
    }
  }
})

/**
 * The exit code of a program that was shut down: 1 when it failed or left anything behind, else 0.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const exitCode = ({ exit, report }: Shutdown.Ended<unknown, unknown>): number => {
  const failed = Option.isSome(exit) && exit.value._tag === "Failure" && report.trigger._tag === "MainEnded"
  return failed || report.items.some((item) => item.fate === "abandoned" || item.failed) ? 1 : 0
}

/**
 * Runs a program as this process: shuts it down in stages on SIGINT and SIGTERM, prints the report on the error
 * output, and ends the process, whatever still hangs.
 *
 * **Guarantees**
 *
 * - **It ends (L43)**: within drain + force after the first signal, unless the thread is blocked.
 *
 * **Gotchas**
 *
 * A loop that never yields keeps signals from being heard; only the process manager's SIGKILL ends that.
 *
 * **Example**
 *
 * ```ts no-run
 * import * as Effect from "effect/Effect"
 * import { runMain } from "@curfew/shutdown/Node"
 *
 * runMain(Effect.never, { drain: "20 seconds", force: "8 seconds" })
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const runMain = <A, E>(
  main: Effect.Effect<A, E, Owner>,
  options?: Shutdown.ShutdownOptions & {
    /** Default: {@link exitCode}. */
    readonly exitCode?: ((ended: Shutdown.Ended<A, E>) => number) | undefined
    /** Is given the lines of the report. Default: the error output. */
    readonly print?: ((text: string) => void) | undefined
  }
): void => {
  const context = Context.empty()
  const program = Shutdown.run(main, { signals: processSignals(), ...options })
  // Nothing else may hold the process open while it waits for a signal.
  const awake = Child.startUnsafe(context, Effect.forever(Effect.sleep("1 hour")))
  Child.startUnsafe(context, program).addObserver((exit) => {
    awake.interruptUnsafe()
    if (exit._tag === "Failure") {
      console.error(exit.cause)
      process.exit(1)
    }
    const { value: ended } = exit
    if (Option.isSome(ended.exit) && ended.exit.value._tag === "Failure") {
      const failure = failureOf(ended.exit.value.cause)
      if (failure !== undefined) console.error(Cause.pretty(failure))
    }
    // Whatever the program's own callbacks do, the process ends.
    let code = 1
    try {
      const print = options?.print ?? ((text: string) => process.stderr.write(`${text}\n`))
      print(Report.toText(ended.report))
      code = (options?.exitCode ?? exitCode)(ended)
    } catch (error) {
      console.error(error)
    }
    process.exit(code)
  })
}
