import { failureOf, formatTree, type Owner, toJson } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import { inspectUnsafe } from "@curfew/scope/inspect"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
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
 * How {@link inspectOnSignal} prints.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface InspectOptions {
  /** Default: `SIGUSR2`. Node keeps `SIGUSR1` for its debugger. */
  readonly signal?: "SIGUSR2" | "SIGHUP" | "SIGQUIT" | "SIGINFO" | undefined
  /** Is given the tree. Default: the error output. */
  readonly print?: ((text: string) => void) | undefined
  /** One line of JSON in place of the text. Default: false. */
  readonly json?: boolean | undefined
  /** Default: when the error output is a terminal, the default `print` is used and `NO_COLOR` is not set. */
  readonly colour?: boolean | undefined
}

/**
 * Prints the live tree each time the process gets a signal, for as long as the `Scope` is open.
 *
 * **Guarantees**
 *
 * - **Whatever the program does**: it is printed from the signal's handler, without a fiber, also while the program
 *   drains or hangs in clean-up.
 * - **No ear left behind**: the listener goes when the `Scope` closes.
 * - **Read only**: the program goes on.
 *
 * **When cancelled**
 *
 * It does not suspend.
 *
 * **Gotchas**
 *
 * A loop that never yields the thread keeps the signal from being heard. A process that does not listen ends by
 * SIGUSR2, so send it only to one that does. Windows has no such signal: there nothing is ever printed.
 *
 * **Example**
 *
 * ```ts no-run
 * import { inspectOnSignal } from "@curfew/shutdown/Node"
 * import * as Effect from "effect/Effect"
 *
 * // kill -USR2 <pid> prints what is alive, and why it still is
 * const server = Effect.scoped(Effect.andThen(inspectOnSignal(), Effect.never))
 * ```
 *
 * @see runMain for the option `inspectOnSignal`, which covers the shutdown as well.
 * @stability unstable
 * @since 0.1.0
 */
export const inspectOnSignal = (options?: InspectOptions): Effect.Effect<void, never, Scope.Scope> =>
  Effect.flatMap(Clock.Clock, (clock) => {
    if (process.platform === "win32") return Effect.void
    const { json, print = toStderr, signal = "SIGUSR2" } = options ?? {}
    const colour = options?.colour ?? (print === toStderr && process.stderr.isTTY && !process.env["NO_COLOR"])
    const listener = () => {
      const tree = inspectUnsafe(clock)
      print(json === true ? JSON.stringify(toJson(tree)) : formatTree(tree, { colour }))
    }
    return Effect.asVoid(
      Effect.acquireRelease(
        Effect.sync(() => process.on(signal, listener)),
        () => Effect.sync(() => process.off(signal, listener))
      )
    )
  })

const toStderr = (text: string): void => {
  process.stderr.write(`${text}\n`)
}

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
    /** Prints the live tree on SIGUSR2, as {@link inspectOnSignal} does, the shutdown included. Default: false. */
    readonly inspectOnSignal?: boolean | InspectOptions | undefined
  }
): void => {
  const context = Context.empty()
  const shutDown = Shutdown.run(main, { signals: processSignals(), ...options })
  const asked = options?.inspectOnSignal ?? false
  const program =
    asked === false
      ? shutDown
      : Effect.scoped(Effect.andThen(inspectOnSignal(asked === true ? undefined : asked), shutDown))
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
      const print = options?.print ?? toStderr
      print(Report.toText(ended.report))
      code = (options?.exitCode ?? exitCode)(ended)
    } catch (error) {
      console.error(error)
    }
    process.exit(code)
  })
}
