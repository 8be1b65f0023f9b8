/**
 * Log lines on the error output, as text or as JSON, from effects and from callbacks alike.
 *
 * **Invariants**
 * 1. A line is written in the turn in which it is said, so none is lost at the end of the process.
 * 2. Text is one line per event: what a peer sent is escaped, and cannot forge another line.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"

export type Level = "debug" | "info" | "warn" | "error"
export type Fields = Readonly<Record<string, string | number>>

const ranks: Readonly<Record<Level, number>> = { debug: 0, info: 1, warn: 2, error: 3 }

const plain = /^[\w.:/@[\]-]+$/

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what has to be kept out of a terminal
const control = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g
const escaped = (text: string): string =>
  text.replace(control, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`)

const fieldText = (value: unknown): string => {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "undefined")
  return plain.test(text) ? text : escaped(JSON.stringify(text))
}

const textLine = (
  at: string,
  level: Level,
  message: string,
  fields: Readonly<Record<string, unknown>>
): string => {
  const rest = Object.entries(fields).map(([name, value]) => ` ${name}=${fieldText(value)}`)
  return `${at} ${level.padEnd(5)} ${escaped(message)}${rest.join("")}`
}

export class Log {
  readonly #format: "text" | "json"
  readonly #least: number
  readonly #clock: Clock.Clock
  readonly #print: (line: string) => void

  constructor(format: "text" | "json", level: Level, clock: Clock.Clock, print: (line: string) => void) {
    this.#format = format
    this.#least = ranks[level]
    this.#clock = clock
    this.#print = print
  }

  readonly write = (level: Level, message: string, fields: Readonly<Record<string, unknown>> = {}): void => {
    if (ranks[level] < this.#least) return
    const at = new Date(this.#clock.currentTimeMillisUnsafe()).toISOString()
    this.#print(
      this.#format === "json"
        ? escaped(JSON.stringify({ at, level, message, ...fields }))
        : textLine(at, level, message, fields)
    )
  }

  readonly debug = (message: string, fields?: Fields): void => this.write("debug", message, fields)
  readonly info = (message: string, fields?: Fields): void => this.write("info", message, fields)
  readonly warn = (message: string, fields?: Fields): void => this.write("warn", message, fields)
}

const levelOf = (level: string): Level => {
  switch (level) {
    case "Fatal":
    case "Error":
      return "error"
    case "Warn":
      return "warn"
    case "Info":
      return "info"
    default:
      return "debug"
  }
}

/** The same lines for whatever logs through Effect below. */
export const effectLogs = (log: Log, level: Level): Layer.Layer<never> => {
  const logger = Logger.make(({ cause, fiber, logLevel, message }) => {
    const parts = Array.isArray(message) ? message : [message]
    const text = parts.map((part) => (typeof part === "string" ? part : JSON.stringify(part))).join(" ")
    const failed = cause.reasons.length === 0 ? {} : { cause: Cause.pretty(cause) }
    log.write(levelOf(logLevel), text, { ...fiber.getRef(References.CurrentLogAnnotations), ...failed })
  })
  const least = level === "debug" ? "Debug" : level === "info" ? "Info" : level === "warn" ? "Warn" : "Error"
  return Layer.merge(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, least))
}

/** A log on the error output. */
export const makeLog = (format: "text" | "json", level: Level): Effect.Effect<Log> =>
  Effect.map(
    Clock.Clock,
    (clock) => new Log(format, level, clock, (line) => process.stderr.write(`${line}\n`))
  )
