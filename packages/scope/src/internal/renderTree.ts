/**
 * The live tree as lines of text.
 *
 * Invariants
 * 1. One line a node, columns aligned over the whole tree, no recursion. What is nested deeper than `maxDepth` is not
 *    indented further but says how deep it is: the text grows with the number of nodes, not with its square.
 * 2. Whatever is in a name or a message of the program: a line stays a line, and a long one is cut.
 * 3. What was cancelled says why; what is stuck says where it comes from.
 */
import { describe } from "@curfew/reason"
import * as Duration from "effect/Duration"
import type { LiveNode, LiveTree } from "../inspect.ts"

interface Line {
  readonly what: string
  readonly state: string
  readonly age: string
  readonly more: string
}

const maxDepth = 24

interface Step {
  readonly node: LiveNode
  readonly depth: number
  readonly indent: string
  readonly branch: string
}

export const renderTree = (tree: LiveTree): string => {
  if (tree.roots.length === 0) return "nothing is alive"
  const lines = layOut(tree.roots)
  const what = width(lines, (line) => line.what)
  const state = width(lines, (line) => line.state)
  const age = width(lines, (line) => line.age)
  const rows = lines.map((line) =>
    `${line.what.padEnd(what)}  ${line.state.padEnd(state)}  ${line.age.padStart(age)}  ${line.more}`.trimEnd()
  )
  const stuck = tree.stuck.map(
    (record) =>
      `stuck: ${record.kind} ${quoted(record.name)}${record.source === undefined ? "" : ` from ${record.source}`}`
  )
  const waiting =
    tree.waitingFor.length === 0
      ? []
      : [`a shutdown waits for ${tree.waitingFor.length}: ${shorten(tree.waitingFor)}`]
  return [...rows, ...stuck, ...waiting].join("\n")
}

const maxNames = 10

const shorten = (names: ReadonlyArray<string>): string =>
  names.length <= maxNames
    ? names.map(oneLine).join(", ")
    : `${names.slice(0, maxNames).map(oneLine).join(", ")} and ${names.length - maxNames} more`

const layOut = (roots: ReadonlyArray<LiveNode>): ReadonlyArray<Line> => {
  const lines: Array<Line> = []
  const open: Array<Step> = roots.map((node) => ({ node, depth: 0, indent: "", branch: "" })).reverse()
  for (let step = open.pop(); step !== undefined; step = open.pop()) {
    const { branch, depth, indent, node } = step
    lines.push(toLine(node, depth > maxDepth ? `${indent}${branch}(${depth}) ` : `${indent}${branch}`))
    const below =
      depth >= maxDepth ? indent : indent + (branch === "" ? "" : branch === "└─ " ? "   " : "│  ")
    for (let i = node.children.length - 1; i >= 0; i--) {
      const last = i === node.children.length - 1
      open.push({
        node: node.children[i] as LiveNode,
        depth: depth + 1,
        indent: below,
        branch: last ? "└─ " : "├─ "
      })
    }
  }
  return lines
}

const toLine = (node: LiveNode, lead: string): Line => {
  const why = node.reason === undefined ? "" : oneLine(describe(node.reason))
  return {
    what: `${lead}${node.kind}${node.name === undefined ? "" : ` ${quoted(node.name)}`}`,
    state: node.state,
    age: human(node.age),
    more: [why, node.deadline === undefined ? "" : deadline(node.deadline)]
      .filter((part) => part !== "")
      .join(", ")
  }
}

const quoted = (name: string | undefined): string =>
  name === undefined ? "without a name" : JSON.stringify(short(name)).replace(breaking, escaped)

/** How much of a name or a sentence is shown. */
const maxText = 120

const short = (text: string): string => (text.length <= maxText ? text : `${text.slice(0, maxText)}…`)

const breaking = /[\p{Cc}\p{Zl}\p{Zp}]/gu

const escaped = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`

const oneLine = (text: string): string => short(text).replace(breaking, " ")

const deadline = (left: Duration.Duration): string =>
  Duration.toMillis(left) >= 0 ? `deadline in ${human(left)}` : "past its deadline"

const human = (duration: Duration.Duration): string => {
  const millis = Duration.toMillis(duration)
  if (millis < 1000) return `${Math.round(millis)} ms`
  if (millis < 60_000) return `${(millis / 1000).toFixed(1)} s`
  if (millis < 3_600_000)
    return `${Math.floor(millis / 60_000)} min ${Math.round((millis % 60_000) / 1000)} s`
  return `${Math.floor(millis / 3_600_000)} h ${Math.round((millis % 3_600_000) / 60_000)} min`
}

const width = (lines: ReadonlyArray<Line>, of: (line: Line) => string): number =>
  lines.reduce((most, line) => Math.max(most, of(line).length), 0)
