import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { expect, test } from "vitest"
import { Log } from "../src/internal/log.ts"

const lines = (format: "text" | "json"): readonly [Log, Array<string>] => {
  const printed: Array<string> = []
  const clock = Effect.runSync(Clock.Clock)
  return [new Log(format, "info", clock, (line) => printed.push(line)), printed]
}

// Line ends, escape sequences of seven and of eight bits, and what some terminals take for line ends.
const hostile = "a\nb\u001b[2J\u009b31m\u0085c\u2028d\u007f"

test.each(["text", "json"] as const)("what a peer says cannot move a terminal: %s", (format) => {
  const [log, printed] = lines(format)
  log.info(hostile, { key: hostile, n: 1 })
  expect(printed).toHaveLength(1)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what has to be kept out
  expect(printed[0]).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/)
  if (format === "json")
    expect(JSON.parse(printed[0] ?? "")).toMatchObject({ key: hostile, message: hostile })
})
