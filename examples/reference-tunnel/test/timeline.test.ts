import { describe, expect, test } from "vitest"
import type { Counts } from "../src/process/Meter.ts"
import { leftOver, since } from "../src/report/leftOver.ts"
import type { TimelineEvent } from "../src/report/TimelineEvent.ts"
import { styleFor } from "../src/report/terminal.ts"
import { type Style, timeline, wrap } from "../src/report/timeline.ts"

const plain: Style = { width: 100, symbols: false, colour: false }

const events: ReadonlyArray<TimelineEvent> = [
  { at: 1010, lane: "gateway", mark: "start", call: "c1", stream: 1, text: "stream 1 opens" },
  { at: 1000, lane: "client", mark: "step", call: "c1", text: "A call that is cancelled" },
  { at: 1030.25, lane: "agent", mark: "cleanup", call: "c1", stream: 1, text: "stream 1 closes", took: 1.26 },
  { at: 1020, lane: "backend", mark: "cancel", call: "c1", text: "cancelled: the client has gone (grpc)" }
]

describe("the timeline", () => {
  test("has a lane for each process, and is in the order of time", () => {
    expect(timeline(events, plain)).toEqual([
      "      ms  client",
      "          | gateway",
      "          | | agent",
      "          | | | backend",
      "",
      "> starts   < data   = ends   x cancelled   o cleaned up   . note   ! fault",
      "",
      "c1  A call that is cancelled",
      "    10.0  | > | |  gateway  c1   stream 1 opens",
      "    20.0  | | | x  backend  c1   cancelled: the client has gone (grpc)",
      "    30.3  | | o |  agent    c1   stream 1 closes (1.3 ms)"
    ])
  })

  test("breaks long texts so that no line is wider than the terminal", () => {
    const long = {
      ...(events[3] as TimelineEvent),
      text: `cancelled ${"because ".repeat(40)}${"x".repeat(200)}`
    }
    for (const width of [40, 60, 72, 80, 140]) {
      const lines = timeline([long], { ...plain, width })
      expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(width)
      expect(lines.join("").match(/because/g)).toHaveLength(40)
    }
  })

  test("leaves the lanes out where there is no room for them", () => {
    const lines = timeline(events, { ...plain, width: 70 })
    expect(lines).toContain("    20.0  backend  c1   cancelled: the client has gone (grpc)")
    expect(lines.join("\n")).not.toContain("> starts")
  })

  test("has only ASCII without symbols, and no escapes without colour", () => {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character is what is looked for
    expect(timeline(events, { ...plain, symbols: true }).join("")).not.toMatch(/\u001b/)
    expect(timeline(events, plain).join("")).toMatch(/^[ -~]*$/)
    expect(timeline(events, { ...plain, symbols: true, colour: true }).join("")).toContain(
      "\u001b[33m✕\u001b[0m"
    )
  })

  test("is empty but for its heading when nothing happened", () => {
    expect(timeline([], plain)).toHaveLength(6)
  })
})

describe("the style", () => {
  test.each([
    ["a terminal", { isTTY: true, columns: 90, env: {} }, { width: 89, symbols: true, colour: true }],
    ["a pipe", { isTTY: false, columns: undefined, env: {} }, { width: 109, symbols: false, colour: false }],
    [
      "a pipe that is told a width",
      { isTTY: false, columns: undefined, env: { COLUMNS: "80" } },
      { width: 79, symbols: false, colour: false }
    ],
    [
      "a terminal that does not know its width",
      { isTTY: true, columns: 0, env: {} },
      { width: 109, symbols: true, colour: true }
    ],
    [
      "NO_COLOR",
      { isTTY: true, columns: 90, env: { NO_COLOR: "1" } },
      { width: 89, symbols: true, colour: false }
    ],
    [
      "an empty NO_COLOR",
      { isTTY: true, columns: 90, env: { NO_COLOR: "" } },
      { width: 89, symbols: true, colour: true }
    ],
    [
      "a dumb terminal",
      { isTTY: true, columns: 90, env: { TERM: "dumb" } },
      { width: 89, symbols: false, colour: false }
    ],
    [
      "a very narrow terminal",
      { isTTY: true, columns: 10, env: {} },
      { width: 40, symbols: true, colour: true }
    ],
    [
      "a very wide terminal",
      { isTTY: true, columns: 400, env: {} },
      { width: 140, symbols: true, colour: true }
    ]
  ])("of %s", (_, terminal, style) => {
    expect(styleFor(terminal)).toEqual(style)
  })
})

test("wrapping keeps every word", () => {
  expect(wrap("one two three", 9)).toEqual(["one two", "three"])
  expect(wrap("", 9)).toEqual([""])
  expect(wrap("abcdefghijkl", 9)).toEqual(["abcdefghi", "jkl"])
})

const none: Counts = {
  fibers: 0,
  openStreams: 0,
  listeners: 0,
  timers: 0,
  ports: 0,
  sockets: 0,
  stuck: 0,
  unhandled: 0,
  errorLogs: 0,
  lateWrites: 0
}

describe("the table of what is left over", () => {
  test("says none for nothing, a number for something, and unknown for a process that said nothing", () => {
    const lines = leftOver(
      [
        { lane: "client", counts: none },
        { lane: "gateway", counts: { ...none, fibers: 2 } },
        { lane: "agent", counts: undefined }
      ],
      plain
    )
    expect(lines.slice(0, 3)).toEqual([
      "                 client  gateway    agent",
      "fibers             none        2  unknown",
      "open streams       none     none  unknown"
    ])
  })

  test("compares two moments of a process that stays up", () => {
    expect(since({ ...none, fibers: 3 }, { ...none, fibers: 5 })).toEqual({ ...none, fibers: 2 })
  })

  test("owes nothing for what was there before and has ended since", () => {
    const counts = since({ ...none, timers: 2, fibers: 1 }, { ...none, timers: 1, fibers: 2 })
    expect(counts).toEqual({ ...none, fibers: 1 })
    expect(leftOver([{ lane: "agent", counts }], plain)[4]).toBe("timers             none")
  })
})
