/**
 * Turns each `ts` fence of the READMEs, of `docs/*.md` and of the doc comments in the packages into a module
 * below `test/.generated`, which `test/docs.test.ts` runs and `npm run typecheck` checks.
 *
 * A comment `// => value` asserts the value of the expression or the `const` that ends on its line. A promise is
 * awaited first when the statement stands at the top level. A fence tagged `ts no-run` is only type-checked.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parse } from "@babel/parser"
import { filesBelow, root } from "./workspace.ts"

export interface Fence {
  /** The file and the line at which the fence opens: `packages/scope/README.md:12`. */
  readonly name: string
  readonly run: boolean
  readonly code: string
}

export const generated: string = join(root, "test/.generated")

const sources = (): ReadonlyArray<string> => [
  ...["README.md", "CONTRIBUTING.md"].filter((file) => existsSync(join(root, file))),
  ...filesBelow("docs", (path) => path.endsWith(".md")),
  ...filesBelow("packages", (path) => /^packages\/[^/]+\/(README\.md|src\/.*\.ts)$/.test(path)),
  ...filesBelow("examples", (path) => /^examples\/[^/]+\/README\.md$/.test(path))
]

/** The `ts` fences of one file; in a TypeScript file only those in doc comments count. */
export const fencesOf = (path: string, text: string): ReadonlyArray<Fence> => {
  const fences: Array<Fence> = []
  const inSource = path.endsWith(".ts")
  let inDoc = !inSource
  let open: { line: number; info: string; code: Array<string> } | undefined
  for (const [index, raw] of text.split("\n").entries()) {
    if (inSource && /^\s*\/\*\*/.test(raw)) inDoc = true
    const line = inSource ? raw.replace(/^\s*\* ?/, "") : raw
    const mark = inDoc ? /^\s*```(.*)$/.exec(line) : null
    if (open !== undefined && mark === null) open.code.push(line)
    else if (open !== undefined) {
      const { code, info, line: at } = open
      open = undefined
      if (/^(ts|tsx|typescript)\b/.test(info)) {
        const name = `${path}:${at}`
        if (info !== "ts" && info !== "ts no-run") throw new Error(`${name}: write \`ts\` or \`ts no-run\``)
        fences.push({ name, run: info === "ts", code: code.join("\n") })
      }
    } else if (mark !== null) open = { line: index + 1, info: (mark[1] ?? "").trim(), code: [] }
    if (inSource && raw.includes("*/")) {
      if (open !== undefined) throw new Error(`${path}:${open.line}: the fence is not closed`)
      inDoc = false
    }
  }
  if (open !== undefined) throw new Error(`${path}:${open.line}: the fence is not closed`)
  return fences
}

/** A node of the parser, whose shape depends on its type. */
// biome-ignore lint/suspicious/noExplicitAny: the parser's own node types are a union of 250
type Node = any

interface Statement {
  readonly start: number
  readonly end: number
  readonly endLine: number
  readonly top: boolean
  readonly node: Node
}

const statementsOf = (node: Node, top: boolean, found: Array<Statement> = []): ReadonlyArray<Statement> => {
  if (Array.isArray(node)) for (const child of node) statementsOf(child, top, found)
  else if (typeof node?.type === "string") {
    if (node.type === "ExpressionStatement" || node.type === "VariableDeclaration") {
      found.push({ ...node, endLine: node.loc.end.line, top, node })
    }
    const inner = top && !/Function|Method/.test(node.type)
    for (const [key, child] of Object.entries(node)) if (key !== "loc") statementsOf(child, inner, found)
  }
  return found
}

/** The module that runs a fence. */
export const moduleOf = ({ code, name }: Fence): string => {
  const file = parse(code, { sourceFilename: name, sourceType: "module", plugins: ["typescript"] })
  const statements = statementsOf(file.program.body, true)
  const edits: Array<readonly [at: number, until: number, text: string]> = []
  for (const comment of file.comments ?? []) {
    const value = /^ ?=> ?(.*)$/s.exec(comment.value)?.[1]?.trim()
    if (value === undefined) continue
    const statement = statements
      .filter((s) => s.endLine === comment.loc?.start.line && s.end <= (comment.start ?? 0))
      .sort((a, b) => a.end - b.end)
      .at(-1)
    if (statement === undefined) throw new Error(`${name}: nothing ends before "// => ${value}"`)
    const assert = (expression: string) =>
      `expectValue(${statement.top ? "await " : ""}(${expression})).toEqual(${value});`
    if (statement.node.type === "VariableDeclaration") {
      const { id } = statement.node.declarations.at(-1)
      if (id.type !== "Identifier") throw new Error(`${name}: a pattern before "// => ${value}"`)
      edits.push([statement.end, statement.end, `; ${assert(id.name)}`])
    } else {
      const { expression } = statement.node
      const callee =
        expression.type === "CallExpression" ? code.slice(expression.callee.start, expression.callee.end) : ""
      const subject = callee === "console.log" ? expression.arguments[0] : expression
      edits.push([statement.start, statement.end, `;${assert(code.slice(subject.start, subject.end))}`])
    }
  }
  const body = edits
    .sort(([a], [b]) => b - a)
    .reduce((text, [at, until, edit]) => text.slice(0, at) + edit + text.slice(until), code)
  const imports = edits.length > 0 ? `import { expect as expectValue } from "vitest"\n` : ""
  return `// Generated from ${name}\n${imports}${body}\nexport {}\n`
}

export const fileOf = ({ name }: Fence): string => `${name.replaceAll(/[^A-Za-z0-9]+/g, "-")}.ts`

const config = {
  extends: "../../tsconfig.test.json",
  // Examples show values that nothing uses.
  compilerOptions: { noUnusedLocals: false, noUnusedParameters: false },
  include: ["./*.ts"],
  exclude: []
}

/** A fence that cannot be turned into a module fails as the one test that it is. */
const moduleOrError = (fence: Fence): string => {
  try {
    return moduleOf(fence)
  } catch (error) {
    return `throw new Error(${JSON.stringify(error instanceof Error ? error.message : String(error))})\nexport {}\n`
  }
}

/** Writes the modules of all fences and the tsconfig that checks them; removes those of fences that are gone. */
export const generate = (): ReadonlyArray<Fence> => {
  const fences = sources().flatMap((path) => fencesOf(path, readFileSync(join(root, path), "utf8")))
  const wanted = new Map(fences.map((fence) => [fileOf(fence), moduleOrError(fence)]))
  wanted.set("tsconfig.json", `${JSON.stringify(config, null, 2)}\n`)
  mkdirSync(generated, { recursive: true })
  for (const file of readdirSync(generated)) if (!wanted.has(file)) rmSync(join(generated, file))
  for (const [file, text] of wanted) {
    const path = join(generated, file)
    if (!existsSync(path) || readFileSync(path, "utf8") !== text) writeFileSync(path, text)
  }
  return fences
}
