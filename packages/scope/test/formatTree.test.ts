import { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import { formatTree, type LiveNode, type LiveTree } from "../src/index.ts"

const node = (fields: Partial<LiveNode>): LiveNode => ({
  kind: "task",
  name: undefined,
  state: "running",
  age: Duration.zero,
  deadline: undefined,
  reason: undefined,
  children: [],
  ...fields
})

const tree = (fields: Partial<LiveTree>): LiveTree => ({ roots: [], stuck: [], waitingFor: [], ...fields })

const textOf = (roots: ReadonlyArray<LiveNode>, rest?: Partial<LiveTree>): ReadonlyArray<string> =>
  formatTree(tree({ roots, ...rest })).split("\n")

describe("formatTree", () => {
  it("says that nothing is alive", () => {
    expect(formatTree(tree({}))).toBe("nothing is alive")
  })

  it("draws branches so that the last child ends its line, and aligns the columns", () => {
    const leaf = (name: string) => node({ name })
    expect(
      textOf([
        node({
          kind: "owner",
          name: "server",
          children: [
            node({ name: "first", children: [leaf("a"), leaf("b")] }),
            node({ name: "last", children: [leaf("c")] })
          ]
        })
      ])
    ).toEqual([
      'owner "server"   running  0 ms',
      '├─ task "first"  running  0 ms',
      '│  ├─ task "a"   running  0 ms',
      '│  └─ task "b"   running  0 ms',
      '└─ task "last"   running  0 ms',
      '   └─ task "c"   running  0 ms'
    ])
  })

  it("shows an age in the unit that fits it", () => {
    const ages = [999.4, 1_000, 59_900, 60_000, 3_599_000, 3_600_000, 93_780_000]
    const shown = ages.map(
      (millis) => textOf([node({ age: Duration.millis(millis) })])[0]?.split("running  ")[1]
    )
    expect(shown).toEqual([
      "999 ms",
      "1.0 s",
      "59.9 s",
      "1 min 0 s",
      "59 min 59 s",
      "1 h 0 min",
      "26 h 3 min"
    ])
  })

  it("says how long is left until a deadline, or that it has passed, after the reason", () => {
    const reason = CancelReason.Requested({ message: "the user left" })
    const rows = [
      node({ deadline: Duration.seconds(2) }),
      node({ deadline: Duration.zero }),
      node({ deadline: Duration.millis(-1) }),
      node({ reason, state: "cleaning up" }),
      node({ reason, deadline: Duration.seconds(1) })
    ]
    expect(rows.map((row) => textOf([row])[0]?.split("0 ms  ")[1])).toEqual([
      "deadline in 2.0 s",
      "deadline in 0 ms",
      "past its deadline",
      "the user left",
      "the user left, deadline in 1.0 s"
    ])
  })

  it("names what is stuck and where it comes from, with or without a name", () => {
    const record = { id: 1, kind: "finalizer", reason: undefined, span: undefined, startedAt: 0 } as const
    expect(
      textOf([node({})], {
        stuck: [
          { ...record, name: "close the pool", source: "pool.ts:7:3" },
          { ...record, name: undefined, source: undefined }
        ]
      }).slice(1)
    ).toEqual(['stuck: finalizer "close the pool" from pool.ts:7:3', "stuck: finalizer without a name"])
  })

  it("names ten of those that a shutdown waits for, and counts the others", () => {
    const names = (count: number) => Array.from({ length: count }, (_, i) => `t${i}`)
    const last = (count: number) => textOf([node({})], { waitingFor: names(count) })[1]
    expect(last(0)).toBeUndefined()
    expect(last(2)).toBe("a shutdown waits for 2: t0, t1")
    expect(last(10)).toBe(`a shutdown waits for 10: ${names(10).join(", ")}`)
    expect(last(12)).toBe(`a shutdown waits for 12: ${names(10).join(", ")} and 2 more`)
  })

  it("indents no further than to a depth, and tells the depth from there on", () => {
    let deep = node({ name: "bottom" })
    for (let i = 0; i < 200; i++) deep = node({ children: [deep] })
    const lines = textOf([deep])
    expect(lines).toHaveLength(201)
    expect(lines.at(-1)).toContain('(200) task "bottom"')
    expect(lines[1]).not.toContain("(1)")
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThan(200)
  })
})
