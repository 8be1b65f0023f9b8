import { expect, test } from "vitest"
import { run } from "../src/grpc/main.ts"
import { checkEncoded, checkHeaders, checkValue, encoded, stacks, value } from "../src/grpc/service.ts"

test("every stack answers every kind of call with what was sent, and each row names what a call costs", {
  timeout: 120_000
}, async () => {
  const rows = await run({ quick: true, calls: 4 })
  const peers = stacks.filter((stack) => stack !== "curfew")
  expect(rows.length).toBe(4 * peers.length)
  expect(new Set(rows.map(({ peerName }) => peerName))).toEqual(new Set(peers))
  for (const { note, ours, peer } of rows) {
    expect(ours).toBeGreaterThan(0)
    expect(peer).toBeGreaterThan(0)
    expect(note).toMatch(/^CPU of a call, client \+ server: \d+ \+ \d+ µs; /)
  }
})

test("a wrong answer, and a call without its metadata or its deadline, end the run", () => {
  const wrong = Buffer.from(encoded)
  wrong[50] = 0
  expect(() => checkEncoded(wrong)).toThrow("not what was sent")
  expect(() => checkValue(value.subarray(1))).toThrow("not what was sent")
  expect(() => checkHeaders("somebody", 1_000)).toThrow("without its metadata")
  expect(() => checkHeaders("benchmarks", Number.POSITIVE_INFINITY)).toThrow("without its deadline")
  checkEncoded(encoded)
  checkValue(value)
  checkHeaders("benchmarks", 1_000)
})
