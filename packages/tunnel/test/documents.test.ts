/** What the documents say of the tunnel, held against the code and the tests. */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import type { TunnelRule } from "../src/index.ts"
import { decodeClientFrame, decodeServerFrame } from "../src/internal/decode.ts"
import { encodeFrame } from "../src/internal/encode.ts"
import { allExtensions } from "../src/internal/extensions.ts"
import { metadataToWire } from "../src/internal/metadata.ts"
import { reasonToWire } from "../src/internal/reasonWire.ts"
import { encoded } from "./support/batches.ts"
import { metadata } from "./support/echo.ts"
import { lines } from "./support/machine.ts"

const root = join(import.meta.dirname, "../../..")
const read = (path: string): string => readFileSync(join(root, path), "utf8")

describe("the comparison with Go's library", () => {
  const rows = read("docs/tunnel-compared-with-go.md")
    .split("\n")
    .filter((line) => /^\| \d+ \|/.test(line))

  it("has one line for each of the twenty-two", () => {
    expect(rows.map((row) => Number(/^\| (\d+)/.exec(row)?.[1]))).toEqual(
      Array.from({ length: 22 }, (_, index) => index + 1)
    )
  })

  const named = rows.flatMap((row) => {
    const cells = row.split(" | ")
    return [...(cells[3] ?? "").matchAll(/\[\w+\]\(\.\.\/([^)]+)\): ([^;|]+)/g)].flatMap(([, file, titles]) =>
      [...(titles ?? "").matchAll(/\*([^*]+)\*/g)].map(([, title]) => [String(file), String(title)] as const)
    )
  })

  it("names a test on each line", () => {
    for (const row of rows) expect(row, row.slice(0, 40)).toMatch(/\.test\.ts\): \*/)
    expect(named.length).toBeGreaterThan(40)
  })

  it.each(named)("names a test that is there: %s, %s", (file, title) => {
    expect(read(file)).toContain(`"${title}"`)
  })
})

describe("the description of the protocol", () => {
  const text = read("docs/tunnel-protocol.md")
  const rules = [...text.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, name]) => String(name))
  const folder = "packages/tunnel/src/internal"
  const code = readdirSync(join(root, folder)).map((file) => read(join(folder, file)))

  it("names each rule that the code names, and the code each that it names", () => {
    const inCode = code.flatMap((source) =>
      [...source.matchAll(/Rules?[\s*]+((?:`[a-z-]+`(?: and )?)+)/g)].flatMap(([, names]) =>
        [...(names ?? "").matchAll(/`([a-z-]+)`/g)].map(([, name]) => String(name))
      )
    )
    expect(new Set(rules).size).toBe(rules.length)
    expect([...new Set(inCode)].toSorted()).toEqual(rules.toSorted())
  })

  it("has every rule whose violation ends a tunnel", () => {
    const ending: Readonly<Record<TunnelRule, true>> = {
      "unreadable-frame": true,
      "settings-first": true,
      "ids-increase": true,
      "stream-unknown": true,
      "answers-unread": true
    }
    expect(rules).toEqual(expect.arrayContaining(Object.keys(ending)))
  })

  it("speaks of every extension", () => {
    for (const extension of allExtensions) expect(text).toContain(`\`${extension}\``)
  })

  const cancel = { _tag: "Cancel", id: 3 } as const
  const examples: Readonly<Record<string, Buffer | undefined>> = {
    "settings: revisions zero and one, window 65,536": encodeFrame({
      _tag: "Settings",
      id: -1,
      revisions: [0, 1],
      window: 65_536
    }),
    "a cancel of stream 3": encodeFrame(cancel),
    "the same, because the user left": encodeFrame({
      ...cancel,
      reason: reasonToWire(CancelReason.Requested({ message: "the user left" }))
    }),
    "a drain": encodeFrame({ _tag: "Drain", id: -1 }),
    "a batch of a half-close of stream 1 and a cancel of stream 3": encoded(
      [{ _tag: "HalfClose", id: 1 }, cancel],
      "batches"
    )[0],
    "metadata with `tail-bin` as the one byte 0xff": metadataToWire(
      metadata({ "tail-bin": Buffer.from([0xff]) }),
      true
    ) as Buffer
  }

  it("gives examples that are what is on the wire", () => {
    const given = [...text.matchAll(/^\| ([^|]+) \| `([0-9a-f]+)` \|$/gm)].map(([, what, hex]) => [what, hex])
    expect(Object.fromEntries(given)).toEqual(
      Object.fromEntries(Object.entries(examples).map(([what, bytes]) => [what, bytes?.toString("hex")]))
    )
  })

  it("gives frames that are read as what they are, in both directions where they go both ways", () => {
    const drain = Buffer.from("08ffffffffffffffffff017a00", "hex")
    expect([decodeClientFrame(drain), decodeServerFrame(drain)]).toEqual([
      { _tag: "Drain", id: -1 },
      { _tag: "Drain", id: -1 }
    ])
  })

  it.each([
    ["client", "clientStream.test.ts"],
    ["server", "serverStream.test.ts"]
  ])("prints the table that the machine at the tunnel %s is held to", (side, file) => {
    const [, table = ""] =
      /const table = lines\(`\n([^`]*)`\)/.exec(read(`packages/tunnel/test/${file}`)) ?? []
    const heading = `### At the tunnel ${side}`
    const [, printed = ""] = /```text\n([^`]*)```/.exec(text.slice(text.indexOf(heading))) ?? []
    expect(lines(table).length).toBeGreaterThan(100)
    expect(lines(printed)).toEqual(lines(table))
  })
})
