import { describe, expect, test } from "vitest"
import { render } from "../src/internal/render.ts"
import type { Snapshot } from "../src/internal/snapshot.ts"

const now: Snapshot = {
  version: 1,
  role: "gateway",
  pid: 42,
  stage: "drain",
  ready: false,
  upForMs: 3_723_000,
  addresses: { listen: "127.0.0.1:7000" },
  tunnels: [
    {
      key: "home",
      kind: "reverse",
      peer: "10.0.0.7:1234",
      openForMs: 90_000,
      streams: 1,
      opened: 7,
      cancelled: 2,
      sentBytes: 2_048,
      receivedBytes: 5 * 1024 ** 2,
      heldBytes: 65_536,
      stalled: 1
    }
  ],
  keys: [{ key: "home", tunnels: 1, inFlight: 1 }],
  calls: {
    started: 7,
    inFlight: 1,
    completed: 4,
    failed: 0,
    cancelled: 2,
    refused: 0,
    cancelledBy: { ClientGone: 1, Deadline: 1 },
    codes: { OK: 4, CANCELLED: 2 },
    longest: [
      {
        method: "/demo.Voice/Wait\u001b[2J",
        key: "home",
        peer: "127.0.0.1:5",
        runningForMs: 4_200,
        requestBytes: 1,
        responseBytes: 7
      }
    ]
  },
  bytes: { requests: 2_048, responses: 7 },
  waitingFor: ["/demo.Voice/Wait via home"],
  tree: { alive: [], stuck: [] } as unknown as Snapshot["tree"],
  treeText: 'scope "gateway"'
}

describe("a status as text", () => {
  test("tells calls, tunnels with their windows, reasons, and what the shutdown waits for by name", () => {
    const text = render(now, { colour: false, width: () => 0 })
    for (const line of [
      "gateway  drain, not ready, up 62 min, pid 42",
      "  cancelled by  ClientGone 1, Deadline 1",
      "  home  reverse  10.0.0.7:1234  90 s          1       7          2  2.0 KiB   5.0 MiB  64.0 KiB          1",
      "the shutdown waits for",
      "  /demo.Voice/Wait via home"
    ]) {
      expect(text.split("\n")).toContain(line)
    }
  })

  test("has nothing in it that moves the cursor of who looks, and no line wider than the terminal", () => {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the test is about them
    const control = /[\u0000-\u0009\u000b-\u001f]/
    expect(render(now, { colour: false, width: () => 0 })).not.toMatch(control)
    const narrow = render(now, { colour: false, width: () => 40 }).split("\n")
    expect(Math.max(...narrow.map((line) => line.length))).toBe(40)
    expect(render(now, { colour: true, width: () => 20 })).toContain(
      "\u001b[1mgateway  drain, not \u001b[22m\n"
    )
  })
})
