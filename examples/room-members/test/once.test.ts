import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { expect, test } from "vitest"

const main = fileURLToPath(new URL("../src/main.ts", import.meta.url))

test("--once plays the scenario, and its last line is JSON", { timeout: 120_000 }, async () => {
  // A failure of the scenario is a failure of the process.
  const { stderr, stdout } = await promisify(execFile)(process.execPath, [
    "-C",
    "@curfew/source",
    main,
    "--once"
  ])
  expect(stderr).toBe("")
  expect(JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "")).toEqual({
    ok: true,
    sharedAnswers: 2,
    sharedRuns: 1,
    clientsThatLeft: 3,
    stoppedHalfway: 1,
    joined: true,
    answeredBeforeAllWereTold: true,
    notTold: 0,
    refused: "403, 404"
  })
  expect(stdout).toMatch(/\. members of lobby stopped after \d+ members: the client has gone \(http1/)
  expect(stdout).toMatch(/Shutdown at the end of the program in .* 0 cancelled, 0 abandoned\n/)
})
