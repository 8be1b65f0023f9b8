/** The live tree as text and as JSON: what a person reads at a glance, and what a machine reads. */
import { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import { formatTree, type LiveNode, type LiveTree, toJson } from "../src/index.ts"

const node = (kind: LiveNode["kind"], name: string | undefined, more: Partial<LiveNode> = {}): LiveNode => ({
  kind,
  name,
  state: "running",
  age: Duration.millis(999.6),
  cleaningUp: undefined,
  daemon: false,
  deadline: undefined,
  reason: undefined,
  children: [],
  ...more
})

const tree = (...roots: ReadonlyArray<LiveNode>): LiveTree => ({ roots, stuck: [], waitingFor: [] })

const gone = CancelReason.ClientGone({ transport: "http1", detail: "socket\nhang up" })
const cleaning = { state: "cleaning up", cleaningUp: Duration.millis(3_250), reason: gone } as const

const realistic: LiveTree = {
  roots: [
    node("owner", "server", {
      state: "draining",
      age: Duration.minutes(242),
      children: [
        node("task", "x".repeat(60), { age: Duration.seconds(119.9) }),
        node("shared", "rooms(lobby)", { daemon: true })
      ]
    }),
    node("call", "GET /", {
      ...cleaning,
      deadline: Duration.seconds(-2),
      children: [
        node("task", undefined, { ...cleaning, deadline: Duration.millis(1_500) }),
        node("cleanup", "close", { ...cleaning, reason: CancelReason.Superseded() })
      ]
    }),
    node("cleanup", "pool", { state: "stuck", cleaningUp: Duration.days(3), age: Duration.days(3) })
  ],
  stuck: [
    {
      id: 1,
      kind: "finalizer",
      name: "pool",
      reason: gone,
      span: undefined,
      startedAt: 5,
      source: "pool.ts:3:1"
    }
  ],
  waitingFor: Array.from({ length: 12 }, (_, i) => `task ${i}`)
}

describe("formatTree", () => {
  it("aligns its columns, cuts long names, and says state, age, reason and deadline for people", () => {
    expect(formatTree(realistic).split("\n")).toEqual([
      'owner "server"                                      draining            4 h 2 min',
      `├─ task "${"x".repeat(39)}…"  running            1 min 59 s`,
      '└─ shared "rooms(lobby)"                            running                999 ms  daemon',
      'call "GET /"                                        cleaning up 3.2 s      999 ms  the client has gone (http1: socket\\nhang up), 2.0 s past its deadline',
      "├─ task                                             cleaning up 3.2 s      999 ms  deadline in 1.5 s",
      '└─ cleanup "close"                                  cleaning up 3.2 s      999 ms  newer work has taken its place',
      'cleanup "pool"                                      stuck 3 d 0 h         3 d 0 h',
      'stuck: finalizer "pool" from pool.ts:3:1',
      "7 alive: 2 running, 1 draining, 3 cleaning up, 1 stuck",
      "a shutdown waits for 12: task 0, task 1, task 2, task 3, task 4, task 5, task 6, task 7, task 8, task 9 and 2 more"
    ])
  })

  it("keeps names and messages in their line, and out of the terminal's control", () => {
    const named = (name: string) => formatTree(tree(node("task", name))).split("\n")[0]
    expect(named("a\r\n\u001b[31mb\u2028c\u0000\u009b\u007f")).toBe(
      'task "a\\r\\n\\u001b[31mb\\u2028c\\u0000\\u009b\\u007f"  running  999 ms'
    )
    // Cut by characters: none is split.
    expect(named("😀".repeat(41))).toBe(`task "${"😀".repeat(39)}…"  running  999 ms`)
    expect(named("y".repeat(1_000_000))).toHaveLength(`task "${"y".repeat(39)}…"  running  999 ms`.length)
    const reason = CancelReason.Requested({ message: "z".repeat(500) })
    expect(formatTree(tree(node("task", "t", { ...cleaning, reason }))).split("\n")[0]).toMatch(/ z{99}…$/)
  })

  it("is plain unless colours are asked for, and then the same text", () => {
    const plain = formatTree(realistic)
    const coloured = formatTree(realistic, { colour: true })
    expect(plain).not.toContain("\u001b")
    expect(coloured).toContain("\u001b[33mcleaning up 3.2 s\u001b[0m")
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are control characters
    expect(coloured.replace(/\u001b\[\d+m/g, "")).toBe(plain)
  })
})

describe("toJson", () => {
  it("is flat: each thing names its place in the list, what it hangs below, and its times in milliseconds", () => {
    const { alive, stuck, waitingFor } = toJson(realistic)
    expect(alive.map(({ below, kind }) => [kind, below])).toEqual([
      ["owner", undefined],
      ["task", 0],
      ["shared", 0],
      ["call", undefined],
      ["task", 3],
      ["cleanup", 3],
      ["cleanup", undefined]
    ])
    expect(alive[3]).toEqual({
      kind: "call",
      name: "GET /",
      state: "cleaning up",
      ageMs: 999.6,
      cleaningUpMs: 3_250,
      deadlineMs: -2_000,
      reason: "ClientGone",
      message: "the client has gone (http1: socket\nhang up)"
    })
    expect(alive[2]).toMatchObject({ daemon: true })
    expect(stuck).toEqual([
      { kind: "finalizer", name: "pool", reason: "ClientGone", startedAt: 5, source: "pool.ts:3:1" }
    ])
    expect(waitingFor).toHaveLength(12)
    expect(JSON.parse(JSON.stringify(toJson(realistic)))).toEqual(toJson(realistic))
  })

  it("tells ten thousand levels without recursion", () => {
    let deep = node("scope", "0")
    for (let i = 1; i < 10_000; i++) deep = node("scope", `${i}`, { children: [deep] })
    const parsed = JSON.parse(JSON.stringify(toJson(tree(deep)))) as ReturnType<typeof toJson>
    expect(parsed.alive).toHaveLength(10_000)
    expect(parsed.alive[9_999]?.below).toBe(9_998)
  })
})
