/** What nobody should pass, for the tests of what happens when somebody does. */
import { IllegalArgument } from "@curfew/scope"
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"

/** No duration at all, or one that Effect would take for zero. */
export const noDurations: ReadonlyArray<readonly [string, Duration.Input]> = (
  [
    ["NaN", Number.NaN],
    ["a sentence", "in a minute"],
    ["an empty text", ""],
    ["null", null],
    ["an object without a unit", {}],
    ["a misspelt unit", { sceonds: 5 }],
    ["a unit that is NaN", { seconds: Number.NaN }],
    ["a pair with NaN", [Number.NaN, 0]],
    ["a triple", [1, 2, 3]],
    ["a date", new Date(0)],
    ["a function", () => 5],
    ["a symbol", Symbol("5 seconds")]
  ] as ReadonlyArray<readonly [string, unknown]>
).map(([name, value]) => [name, value as Duration.Input])

/** What is over before it begins. */
export const overDurations: ReadonlyArray<readonly [string, Duration.Input]> = [
  ["zero", 0],
  ["minus zero", -0],
  ["a negative number", -1],
  ["a negative text", "-5 seconds"],
  ["minus infinity", Number.NEGATIVE_INFINITY]
]

/** What never comes. */
export const endlessDurations: ReadonlyArray<readonly [string, Duration.Input]> = [
  ["infinity", Number.POSITIVE_INFINITY],
  ["infinity as a text", "Infinity"]
]

/** No count of anything. */
export const noCounts: ReadonlyArray<number> = [
  Number.NaN,
  -1,
  Number.NEGATIVE_INFINITY,
  0.5,
  1.5,
  "3" as unknown as number,
  null as unknown as number
]

/** What an `AbortSignal` may be aborted with, and what is to be made of it: a tag, and a message where there is one. */
export const abortReasons: ReadonlyArray<readonly [string, unknown, string]> = [
  ["undefined", undefined, "Unknown"],
  ["null", null, "Unknown"],
  ["zero", 0, "Unknown"],
  ["a text", "tab closed", "Requested: tab closed"],
  ["an empty text", "", "Requested: "],
  ["a symbol", Symbol("gone"), "Unknown"],
  ["an error", new TypeError("broken"), "Requested: broken"],
  ["an error whose message is a number", Object.assign(new Error("x"), { message: 5 }), "Requested: 5"],
  [
    "an error whose message throws",
    Object.defineProperty(new Error("x"), "message", {
      get: () => {
        throw new Error("getter")
      }
    }),
    "Unknown"
  ],
  [
    "an object with a tag that throws",
    {
      get _tag(): string {
        throw new Error("getter")
      }
    },
    "Unknown"
  ],
  [
    "a proxy that answers nothing",
    new Proxy(
      {},
      {
        has: () => {
          throw new Error("trap")
        },
        getPrototypeOf: () => {
          throw new Error("trap")
        }
      }
    ),
    "Unknown"
  ]
]

/** What {@link throwing} throws. */
export const thrown = new Error("thrown")

/** A callback of the program's that throws. */
export const throwing = (): never => {
  throw thrown
}

/** The same where an effect is expected. */
export const broken = (): Effect.Effect<never> => throwing()

/** The defect of an exit, or the exit itself when it has none. */
export const defectOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  exit._tag === "Failure" && Cause.hasDies(exit.cause) ? Cause.squash(exit.cause) : exit

/** The sentence of an exit that is the defect `IllegalArgument`. */
export const complaintOf = (exit: Exit.Exit<unknown, unknown>): unknown => {
  const defect = defectOf(exit)
  return defect instanceof IllegalArgument ? defect.message : exit
}
