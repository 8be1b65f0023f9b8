/**
 * The live tree as lines of text.
 *
 * Invariants
 * 1. One line a node, columns aligned over the whole tree, no recursion. What is nested deeper than `maxDepth` is not
 *    indented further but says how deep it is: the text grows with the number of nodes, not with its square.
 * 2. What was cancelled says for how long it has been cleaning up, and why, unless that is said in the line above it in
 *    the tree already; what is stuck says where it comes from.
 * 3. A name or a message takes its place in one line and no more: it is cut, and its line breaks are escaped.
 * 4. Without colour the text has no escape sequence, whatever the names are.
 */
import { describe } from "@curfew/reason"
import * as Duration from "effect/Duration"
import type { LiveNode, LiveState, LiveTree } from "../inspect.ts"

interface Line {
  readonly what: string
  readonly state: LiveState
  readonly since: string
  readonly age: string
  readonly more: string
}

const maxDepth = 24
const maxName = 40
const maxWhy = 100

interface Step {
  readonly node: LiveNode
  /** The reason of the line above. */
  readonly known: LiveNode["reason"]
  readonly depth: number
  readonly indent: string
  readonly branch: string
}

type Paint = (code: number, text: string) => string

const plain: Paint = (_, text) => text
const inColour: Paint = (code, text) => `\u001b[${code}m${text}\u001b[0m`

const dim = 2
const red = 31
const colours: Readonly<Record<LiveState, number>> = {
  running: 32,
  draining: 36,
  "cleaning up": 33,
  stuck: red
}

export const renderTree = (tree: LiveTree, colour: boolean): string => {
  if (tree.roots.length === 0) return "nothing is alive"
  const paint = colour ? inColour : plain
  const lines = layOut(tree.roots)
  const what = width(lines, (line) => line.what)
  const state = width(lines, stateOf)
  const age = width(lines, (line) => line.age)
  const rows = lines.map((line) => {
    const left = `${line.what.padEnd(what)}  ${paint(colours[line.state], stateOf(line).padEnd(state))}  `
    return `${left}${paint(dim, line.age.padStart(age))}  ${line.more}`.trimEnd()
  })
  const stuck = tree.stuck.map((record) =>
    paint(
      red,
      `stuck: ${record.kind} ${quoted(record.name)}${record.source === undefined ? "" : ` from ${record.source}`}`
    )
  )
  return [...rows, ...stuck, count(lines), ...waiting(tree.waitingFor)].join("\n")
}

const stateOf = (line: Line): string => (line.since === "" ? line.state : `${line.state} ${line.since}`)

const states: ReadonlyArray<LiveState> = ["running", "draining", "cleaning up", "stuck"]

const count = (lines: ReadonlyArray<Line>): string => {
  const counts = new Map<LiveState, number>()
  for (const { state } of lines) counts.set(state, (counts.get(state) ?? 0) + 1)
  const parts = states.filter((state) => counts.has(state)).map((state) => `${counts.get(state)} ${state}`)
  return `${lines.length} alive: ${parts.join(", ")}`
}

const maxNames = 10

const waiting = (names: ReadonlyArray<string>): ReadonlyArray<string> => {
  if (names.length === 0) return []
  const shown = names.slice(0, maxNames).map((name) => cut(name, maxName))
  const rest = names.length > maxNames ? ` and ${names.length - maxNames} more` : ""
  return [`a shutdown waits for ${names.length}: ${shown.join(", ")}${rest}`]
}

const layOut = (roots: ReadonlyArray<LiveNode>): ReadonlyArray<Line> => {
  const lines: Array<Line> = []
  const open: Array<Step> = roots
    .map((node) => ({ node, known: undefined, depth: 0, indent: "", branch: "" }))
    .reverse()
  for (let step = open.pop(); step !== undefined; step = open.pop()) {
    const { branch, depth, indent, known, node } = step
    lines.push(toLine(node, known, depth > maxDepth ? `${indent}${branch}(${depth}) ` : `${indent}${branch}`))
    const below =
      depth >= maxDepth ? indent : indent + (branch === "" ? "" : branch === "└─ " ? "   " : "│  ")
    for (let i = node.children.length - 1; i >= 0; i--) {
      const last = i === node.children.length - 1
      open.push({
        node: node.children[i] as LiveNode,
        known: node.reason,
        depth: depth + 1,
        indent: below,
        branch: last ? "└─ " : "├─ "
      })
    }
  }
  return lines
}

const toLine = (node: LiveNode, known: LiveNode["reason"], lead: string): Line => {
  const why = node.reason === undefined || node.reason === known ? "" : cut(describe(node.reason), maxWhy)
  const { cleaningUp } = node
  return {
    what: `${lead}${node.kind}${node.name === undefined ? "" : ` ${quoted(node.name)}`}`,
    state: node.state,
    since: cleaningUp === undefined ? "" : human(cleaningUp),
    age: human(node.age),
    more: [why, node.deadline === undefined ? "" : deadline(node.deadline), node.daemon ? "daemon" : ""]
      .filter((part) => part !== "")
      .join(", ")
  }
}

const quoted = (name: string | undefined): string =>
  name === undefined ? "without a name" : `"${cut(name, maxName)}"`

/** At most so many characters, none of which moves the cursor. */
const cut = (text: string, most: number): string => {
  // What is far over the limit is not worth escaping.
  const characters = [...text.slice(0, 2 * most)]
  const fits = characters.length <= most && text.length <= 2 * most
  const short = fits ? characters : [...characters.slice(0, most - 1), "…"]
  return short.map((c) => (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(c) ? escaped(c) : c)).join("")
}

/** JSON leaves some characters as they are that a terminal takes for a command or a line's end. */
const escaped = (character: string): string => {
  const short = JSON.stringify(character).slice(1, -1)
  return short === character ? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}` : short
}

const deadline = (left: Duration.Duration): string =>
  Duration.toMillis(left) >= 0
    ? `deadline in ${human(left)}`
    : `${human(Duration.millis(-Duration.toMillis(left)))} past its deadline`

/** Two units at most, rounded down: an age that has not been reached is not shown. */
const human = (duration: Duration.Duration): string => {
  const millis = Math.floor(Duration.toMillis(duration))
  if (millis < 1000) return `${millis} ms`
  const seconds = Math.floor(millis / 1000)
  if (seconds < 60) return `${seconds}.${Math.floor((millis % 1000) / 100)} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`
}

const width = (lines: ReadonlyArray<Line>, of: (line: Line) => string): number =>
  lines.reduce((most, line) => Math.max(most, [...of(line)].length), 0)
