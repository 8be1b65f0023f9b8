import { createHash } from "node:crypto"
import { describe, expect, test } from "vitest"
import { byDistance, byteString, distanceBetween, hashOf, judge, problemWith } from "../src/backend/search.ts"

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")

describe("byte strings", () => {
  test("come shortest first, in order", () => {
    expect([0, 1, 2, 256, 257, 258, 513, 65_792, 65_793].map((index) => hex(byteString(index)))).toEqual([
      "",
      "00",
      "01",
      "ff",
      "0000",
      "0001",
      "0100",
      "ffff",
      "000000"
    ])
  })

  test("have one number each", () => {
    const seen = new Set(Array.from({ length: 70_000 }, (_, index) => hex(byteString(index))))
    expect(seen.size).toBe(70_000)
  })
})

describe("the distance between a hash and a word", () => {
  test.each([
    ["xxcatxx", "cat", 0],
    ["xxCaTxx", "cat", 0],
    ["xxcutxx", "cat", 1],
    ["zzzzzzz", "cat", 3],
    ["cat", "CAT", 0]
  ])("of %s and %s is %i", (hashed, word, distance) => {
    expect(distanceBetween(hashed.padEnd(44, "="), word)).toBe(distance)
  })

  test("does not count the padding", () => {
    expect(distanceBetween(`${"x".repeat(43)}=`, "x=")).toBe(1)
  })
})

test("a byte string is judged by its SHA-256 in base64", () => {
  const { distance, hash, value } = judge(300, "cat")
  expect(hash).toBe(createHash("sha256").update(value).digest("base64"))
  expect(hash).toBe(hashOf(value))
  expect(distance).toBe(distanceBetween(hash, "cat"))
})

test("better matches come first, and equal ones stay in their order", () => {
  const match = (distance: number, hash: string) => ({ value: new Uint8Array(), hash, distance })
  const sorted = byDistance([match(2, "a"), match(0, "b"), match(2, "c"), match(1, "d")])
  expect(sorted.map(({ hash }) => hash).join("")).toBe("bdac")
})

test.each([
  ["cat", undefined],
  ["", "The word is empty."],
  ["a".repeat(44), "The word is longer than a hash, which has 43 characters."],
  ["ca t", "The word has a character that base64 does not have."]
])("the word %j is told its problem", (word, problem) => {
  expect(problemWith(word)).toBe(problem)
})
