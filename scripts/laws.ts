/**
 * Writes docs/laws.md: every law, the tests that hold it, and the planted violation under which each of them went red.
 * The rows come from `packages/<name>/test/laws.txt` (`law | test | violation`), the sentences from the list below.
 * With `--check` it writes nothing and fails when the document is stale, when a law has no row, or when no test
 * names the law in its title.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { filesBelow, packages, root } from "./workspace.ts"

/** The laws in the order of their numbers. A law that is not held yet is not in the list. */
const laws: ReadonlyArray<readonly [law: string, sentence: string]> = [
  ["L1", "Cancelling is idempotent; the first reason wins."],
  [
    "L2",
    "A cancel signals every scope and task below in the same turn, before any finalizer runs, and nothing above."
  ],
  [
    "L3",
    "`run` yields `Cancelled` for its own cancel alone; an outer cancel, a foreign interrupt and a defect pass."
  ],
  ["L4", "A value that reached `run` before the cancel wins."],
  ["L5", "With its deadline past or its signal aborted, or below a cancelled scope, a body does not start."],
  ["L6", "`currentReason` in any descendant is the first reason of the nearest cancelled ancestor."],
  [
    "L7",
    "The effective deadline is the minimum up to the nearest mask, shield or owner, and its reason names its scope."
  ],
  ["L8", "After a scope's exit no timer, listener or fiber of it remains, other than stuck ones."],
  ["L9", "Not cancelled, a shield is the identity; children forked inside end with it."],
  [
    "L10",
    "`stopCancellation` lets its waiter leave at once; exactly one of waiter and `onAbandoned` gets the exit."
  ],
  [
    "L11",
    "`delayCancellation` keeps its waiter until the work has settled; `onLate` gets the real exit exactly once."
  ],
  ["L11b", "Inside an outer mask delay is the identity."],
  ["L12", "An inner `Effect.interruptible` does not pierce a shield."],
  ["L13", "Work that ends interrupted by itself passes through as it is."],
  [
    "L14",
    "A guard runs iff the own cancellation prevented completion, at most once, never after a successful disarm."
  ],
  ["L15", "A guard runs masked, within the budget, and a cancelled exit stays a pure interrupt."],
  ["L16", "`bounded` returns within the budget for any finalizer that yields the thread."],
  ["L17", "An overrun leaves exactly one stuck record, which goes when the finalizer ends."],
  ["L18", "Within the budget `bounded` is the finalizer itself."],
  ["L19", "The other finalizers of the scope run regardless."],
  ["L20", "`gather` keeps order and shape; holes stay where they are."],
  ["L21", "The first failure comes out unwrapped; the others are annotations, and each is reported once."],
  [
    "L22",
    "An own cancel is a pure interrupt after every child has ended; a child that somebody else stopped is typed."
  ],
  ["L23", "`gather` returns only when no child runs; with `letFinish` the rest belongs to the owner."],
  ["L24", "After a task scope's exit no task lives, other than stuck ones."],
  ["L25", "Under `failFast` the first failure cancels siblings and body, and comes out."],
  ["L26", "Under `supervise` each failure reaches `onUnhandled` exactly once."],
  ["L27", "A closed scope refuses with a typed error; accepted work runs its body or its `onNeverStarted`."],
  ["L28", "Tasks close in parallel."],
  ["L29", "One run per generation of shared work; all observers get the same exit."],
  ["L30", "One observer's cancel is immediate and touches nobody else."],
  [
    "L31",
    "A run that nobody has observed for the linger is cancelled with `Unobserved`; never under `keep`."
  ],
  [
    "L32",
    "`exclusive`: at most one generation between a start and the end of its clean-up, stuck ones excepted."
  ],
  ["L33", "Interruption is never cached; a failure only as `retain` says."],
  ["L34", "A run sees no observer's services, scope, span, annotations, reason or deadline."],
  ["L35", "Cancelling the source gives observers a typed `SharedCancelled`."],
  [
    "L36",
    "Background work has nothing of its caller's; spans are linked both ways, and it is counted by name."
  ],
  ["L37", "`finish` runs once; the record comes out at the later of `finish` and the end of the last lease."],
  ["L38", "Work takes a lease by itself exactly when it runs in its caller's context."],
  [
    "L39",
    "The policy governs the peer's leaving; deadlines, limits and forced shutdown interrupt every handler."
  ],
  ["L40", "Completion never fires the cancel signal."],
  ["L41", "A write after the peer left is a typed outcome, logged at debug, once."],
  ["L42", "Late results go to `onLate`; an infinite deadline costs no fiber and no timer."],
  [
    "L43",
    "Shutdown ends within drain and force; a second signal moves on; one report says what became of what."
  ],
  ["L44", "Cancellation crosses a mask or a shield by no road; what is inside can ask."],
  ["L45", "Ten thousand levels end in success or a typed error."],
  ["L46", "A closed owner takes no work; what it would have taken runs attached, and that is counted once."],
  [
    "L47",
    "What is alive and was started through Curfew stands in the live tree exactly once; what has ended does not."
  ],
  ["L48", "What answers: 499, 504, 503, 429 or 500, and the gRPC codes that go with them."]
]

interface Row {
  readonly laws: ReadonlyArray<string>
  readonly test: string
  readonly violation: string
  readonly name: string
}

const lawPattern = /\bL\d+b?\b/g

const rowsOf = (name: string): ReadonlyArray<Row> => {
  const file = join(root, "packages", name, "test/laws.txt")
  if (!existsSync(file)) return []
  return readFileSync(file, "utf8")
    .split("\n")
    .map((line) => line.split("|").map((cell) => cell.trim()))
    .filter(([law]) => /^L\d/.test(law ?? ""))
    .map(([law, test, ...violation]) => ({
      laws: law?.match(lawPattern) ?? [],
      test: (test ?? "").replaceAll('"', ""),
      violation: violation.join(" | "),
      name
    }))
}

/** The laws that the titles of a package's tests name. */
const titled = (name: string): ReadonlySet<string> => {
  const texts = filesBelow(`packages/${name}/test`, (path) => path.endsWith(".test.ts")).map((path) =>
    readFileSync(join(root, path), "utf8")
  )
  return new Set(texts.flatMap((text) => text.match(lawPattern) ?? []))
}

const names = packages().map(({ dir }) => dir.slice("packages/".length))
const rows = names.flatMap(rowsOf)
const named = new Set(names.flatMap((name) => [...titled(name)]))

const problems: Array<string> = []
const known = new Set(laws.map(([law]) => law))
for (const [law] of laws) {
  if (!rows.some((row) => row.laws.includes(law)))
    problems.push(`${law} has no row in any packages/*/test/laws.txt`)
}
for (const row of rows) {
  if (row.violation === "") problems.push(`${row.name}: "${row.test}" names no planted violation`)
  for (const law of row.laws) {
    if (!known.has(law)) problems.push(`${row.name}: ${law} is not in the list of laws`)
    if (!named.has(law)) problems.push(`${row.name}: no test names ${law} in its title`)
  }
}

const cell = (text: string): string => text.replaceAll("|", "\\|")

const section = ([law, sentence]: readonly [string, string]): string => {
  const own = rows.filter((row) => row.laws.includes(law))
  const table = own.map((row) => `| ${row.name} | ${cell(row.test)} | ${cell(row.violation)} |`).join("\n")
  return `## ${law}\n\n${sentence}\n\n| package | test | goes red when |\n|---|---|---|\n${table}\n`
}

const text = `# The laws

What every release keeps. Each law stands here with tests that hold it and, for each of them, a violation that was planted
in the sources and turned it red. A title with "…" stands for a family of tests. The table is written by
\`npm run laws\` from the \`test/laws.txt\` of the packages.

${laws.map(section).join("\n")}`

const target = join(root, "docs/laws.md")
const fresh = existsSync(target) && readFileSync(target, "utf8") === text
if (process.argv.includes("--check")) {
  if (!fresh) problems.push("docs/laws.md is stale; run npm run laws")
} else if (!fresh) {
  writeFileSync(target, text)
}
for (const problem of problems) console.error(problem)
console.log(`${laws.length} laws, ${rows.length} rows, ${problems.length} problems`)
if (problems.length > 0) process.exitCode = 1
