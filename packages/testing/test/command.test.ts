import { spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, test } from "vitest"

const root = join(import.meta.dirname, "..")
const out = mkdtempSync(join(tmpdir(), "curfew-sweep-"))
afterAll(() => rmSync(out, { recursive: true }))

const run = (...args: ReadonlyArray<string>) =>
  spawnSync(process.execPath, ["-C", "@curfew/source", join(root, "src/cli.ts"), ...args], {
    encoding: "utf8",
    cwd: join(root, "../..")
  })

describe("the command", { timeout: 60_000 }, () => {
  test("reports what is broken, fails, and writes one page with everything in it", () => {
    const page = join(out, "page.html")
    const { status, stderr, stdout } = run("sweep", join(root, "test/fixtures/handler.ts"), "--out", page)
    expect(status).toBe(1)
    expect(stdout).toMatch(/^GET \/report: \d+ runs over \d+ steps, \d+ findings$/m)
    expect(stdout).toContain("NotReleased (connection)")
    expect(stdout).toContain("PermitLost (slots)")
    expect(stdout).toMatch(/packages\/testing\/test\/fixtures\/handler\.ts:\d+:\d+/)
    expect(stderr).toBe(`The timeline is in ${page}\n`)
    const html = readFileSync(page, "utf8")
    expect(html).not.toMatch(/(src|href)=/)
    expect(html).toContain("yield* connection.acquire")
    const data = JSON.parse(/\)\((\{"reports".*\})\)\n<\/script>/.exec(html)?.[1] ?? "{}")
    const kinds = data.reports[0].cards.map(({ kind }: { readonly kind: string }) => kind)
    expect(kinds).toContain("NotReleased")
  })

  test("sweeps each export that is a program, and succeeds when nothing is broken", () => {
    const page = join(out, "none.html")
    const { status, stdout } = run("sweep", join(root, "test/fixtures/sound.ts"), "--out", page)
    expect(stdout).toMatch(/^nap: .* nothing broken\nwithFile: .* nothing broken\n$/)
    expect(status).toBe(0)
    expect(existsSync(page)).toBe(false)
  })

  test("sweeps one export by name, in the modes it is given, and prints JSON", () => {
    const { stdout } = run(
      ...["sweep", join(root, "test/fixtures/sound.ts"), "--export", "nap", "--modes", "root", "--json"]
    )
    expect(JSON.parse(stdout)).toMatchObject([{ name: "nap", ok: true, complete: true }])
  })

  test("says how it is used", () => {
    expect(run().stdout).toContain("Usage: curfew-testing sweep <file>")
    expect(run("sweep").status).toBe(2)
    expect(run("sweep", join(root, "test/fixtures/none.ts")).stderr).toContain(
      "exports neither an Effect nor"
    )
    const missing = run("sweep", "missing.ts")
    expect(missing.status).toBe(2)
    expect(missing.stderr).toMatch(/^missing\.ts cannot be imported: Cannot find module .*\n$/)
    expect(run("sweep", "x.ts", "--wrong").stderr).toContain("unknown or incomplete option: --wrong")
  })
})
