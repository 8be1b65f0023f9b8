/** The page about performance says what the last run measured. */
import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { filled, markdown, page } from "../src/document.ts"
import type { Row } from "../src/harness/row.ts"

const row: Row = {
  row: "a | b",
  ours: 2,
  peer: 3,
  peerName: "somebody",
  unit: "µs",
  ratio: 1.5,
  range: [1, 2],
  target: 1,
  rounds: 3
}

describe("docs/performance.md", () => {
  it("has the tables of the results that are kept beside it", () => {
    const text = readFileSync(page, "utf8")
    expect(filled(text)).toBe(text)
  })

  it("would differ if a figure did", () => {
    const text = readFileSync(page, "utf8")
    expect(filled(text, () => [row])).not.toBe(text)
  })

  it("cannot be filled without its markers", () => {
    expect(() => filled("nothing", () => [row])).toThrow("has no <!-- primitives:begin -->")
  })
})

describe("a table", () => {
  it("counts what was reached, and keeps a bar inside its cell", () => {
    expect(markdown([row, { ...row, target: 2, note: "why" }]).split("\n")).toEqual([
      "1 of 2 reached; rounds: 3.",
      "",
      "|  | row | ours | peer | unit | compared with | ratio | range | at least | beside it |",
      "| --- | --- | --: | --: | --- | --- | --: | --: | --: | --- |",
      "| ✓ | a \\| b | 2.00 | 3.00 | µs | somebody | 1.50 | 1.00 – 2.00 | 1.00 |  |",
      "| ✗ | a \\| b | 2.00 | 3.00 | µs | somebody | 1.50 | 1.00 – 2.00 | 2.00 | why |"
    ])
  })
})
