/**
 * The rules of the source tree as functions over `{ path, text }`, so that a test can plant a violation.
 * Each returns one sentence per violation, and none when the tree is in order.
 */
import { parse } from "@babel/parser"

export interface Source {
  /** Relative to the root, with `/`: `packages/scope/src/Scope.ts`. */
  readonly path: string
  readonly text: string
}

export interface Layers {
  /** From the lowest to the highest. A package may use those of lower layers, not its neighbours. */
  readonly order: ReadonlyArray<ReadonlyArray<string>>
  /** Stand beside the layers: they may use every package, and no package's source uses them. */
  readonly beside: ReadonlyArray<string>
  /** Pairs `[user, used]` of neighbours in one layer that are let through. */
  readonly neighbours: ReadonlyArray<readonly [user: string, used: string]>
}

export interface Exception {
  readonly file: string
  /** The name of what is forbidden, as the violation names it: `setTimeout`, `runFork`, `new Promise`. */
  readonly what: string
  readonly reason: string
}

export interface Node {
  readonly type: string
  readonly start: number
  readonly end: number
  readonly loc: { readonly start: { readonly line: number } }
  readonly leadingComments?: ReadonlyArray<{ readonly type: string; readonly value: string }>
  // The shape depends on `type`.
  // biome-ignore lint/suspicious/noExplicitAny: the parser's own node types are a union of 250
  readonly [key: string]: any
}

type Visit = (node: Node, parent: Node | undefined, key: string) => void

const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && "type" in value && "loc" in value

const skipped = new Set([
  "loc",
  "leadingComments",
  "trailingComments",
  "innerComments",
  "comments",
  "tokens",
  "errors"
])

export const walk = (node: Node, visit: Visit, parent?: Node, key = ""): void => {
  visit(node, parent, key)
  for (const [name, value] of Object.entries(node)) {
    if (skipped.has(name)) continue
    for (const child of Array.isArray(value) ? value : [value])
      if (isNode(child)) walk(child, visit, node, name)
  }
}

export const treeOf = ({ path, text }: Source): Node =>
  parse(text, { sourceFilename: path, sourceType: "module", plugins: ["typescript"] }) as unknown as Node

const at = (source: Source, node: Node): string => `${source.path}:${node.loc.start.line}`

const packageOf = (path: string): string => path.split("/")[1] ?? ""

const isSource = ({ path }: Source): boolean => /^packages\/[^/]+\/src\/.*\.ts$/.test(path)

interface Import {
  readonly node: Node
  readonly from: string
}

const importsOf = (source: Source): ReadonlyArray<Import> => {
  const found: Array<Import> = []
  walk(treeOf(source), (node) => {
    const from =
      node.type === "CallExpression" && node["callee"].type === "Import"
        ? node["arguments"][0]
        : node.type === "TSImportType"
          ? (node["argument"].literal ?? node["argument"])
          : node.type === "TSExternalModuleReference"
            ? node["expression"]
            : (node["source"] ?? undefined)
    if (from?.type === "StringLiteral") found.push({ node, from: from.value })
  })
  return found
}

/** Every import of a workspace package is declared in `dependencies` and comes from a lower layer. */
export const boundaries = (
  sources: ReadonlyArray<Source>,
  dependencies: Readonly<Record<string, ReadonlyArray<string>>>,
  layers: Layers
): ReadonlyArray<string> => {
  const layerOf = (name: string) => layers.order.findIndex((layer) => layer.includes(name))
  const lower = (user: string, used: string): boolean =>
    !layers.beside.includes(used) &&
    (layers.beside.includes(user) ||
      layerOf(used) < layerOf(user) ||
      layers.neighbours.some(([a, b]) => a === user && b === used))
  const known = (name: string) => layers.beside.includes(name) || layerOf(name) >= 0

  const packages = Object.keys(dependencies)
  return [
    ...packages.filter((name) => !known(name)).map((name) => `packages/${name} is not in the list of layers`),
    ...packages.flatMap((user) =>
      (dependencies[user] ?? [])
        .filter((used) => known(user) && (!known(used) || !lower(user, used)))
        .map((used) => `packages/${user}/package.json depends on ${used}, which is not in a lower layer`)
    ),
    ...sources.filter(isSource).flatMap((source) => {
      const user = packageOf(source.path)
      return importsOf(source).flatMap(({ from, node }) => {
        const where = at(source, node)
        if (from.startsWith(".")) {
          const target = new URL(from, `file:///${source.path}`).pathname
          return target.startsWith(`/packages/${user}/src/`)
            ? []
            : [`${where} reaches out of its package: ${from}`]
        }
        const used = /^@curfew\/([^/]+)/.exec(from)?.[1]
        if (used === undefined) return []
        if (used === user) return [`${where} imports its own package by name`]
        if (!lower(user, used)) return [`${where} imports ${used}, which is not in a lower layer`]
        return dependencies[user]?.includes(used)
          ? []
          : [`${where} imports ${used}, which its package.json does not declare`]
      })
    })
  ]
}

/** Effect is imported as `import * as X from "effect/X"`. */
export const effectImports = (sources: ReadonlyArray<Source>): ReadonlyArray<string> =>
  sources.filter(isSource).flatMap((source) =>
    importsOf(source)
      .filter(({ from }) => from === "effect" || from.startsWith("effect/"))
      .filter(
        ({ from, node }) =>
          from === "effect" ||
          node.type !== "ImportDeclaration" ||
          node["specifiers"].length !== 1 ||
          node["specifiers"][0].type !== "ImportNamespaceSpecifier"
      )
      .map(({ from, node }) => `${at(source, node)} imports "${from}" other than as a namespace of a module`)
  )

const forbiddenNames =
  /^(forkDetach|run(Fork|Promise|Callback|Sync)(Exit)?(With)?|setTimeout|setInterval|setImmediate|queueMicrotask|nextTick)$/

const forbiddenMembers: Readonly<Record<string, ReadonlyArray<string>>> = {
  Date: ["now"],
  Effect: ["promise", "tryPromise"],
  Math: ["random"],
  performance: ["now"]
}

/** The name of a member access, by a dot or by a literal in brackets. */
export const memberOf = (node: Node): string | undefined => {
  const property: Node = node["property"]
  if (property.type === "StringLiteral") return property["value"]
  return property.type === "Identifier" && !node["computed"] ? property["name"] : undefined
}

export const isMember = (node: Node): boolean => /^(Optional)?MemberExpression$/.test(node.type)

export const isCall = (node: Node): boolean => /^(Optional)?CallExpression$/.test(node.type)

/** `Effect.catch(…)` is a function of a module; `work.catch(…)` is a method of a promise. */
const isModule = (node: Node): boolean => node.type === "Identifier" && /^[A-Z]/.test(node["name"])

const forbiddenIn = (source: Source): ReadonlyArray<{ readonly what: string; readonly where: string }> => {
  const found = new Map<string, { what: string; where: string }>()
  const tree = treeOf(source)
  const asynchronous = new Set<string>()
  walk(tree, (node, parent) => {
    if (node["async"] !== true) return
    const id = node["id"] ?? (parent?.type === "VariableDeclarator" ? parent["id"] : undefined)
    if (id?.type === "Identifier") asynchronous.add(id.name)
  })
  walk(tree, (node, parent, key) => {
    const add = (what: string) => {
      const where = at(source, node)
      found.set(`${where} ${what}`, { what, where })
    }
    if (node.type === "Identifier" && forbiddenNames.test(node["name"])) add(node["name"])
    if (isMember(node)) {
      const name = memberOf(node)
      if (node["property"].type === "StringLiteral" && forbiddenNames.test(name ?? "")) add(name ?? "")
      const object = isMember(node["object"]) ? memberOf(node["object"]) : node["object"].name
      if (
        name !== undefined &&
        Object.hasOwn(forbiddenMembers, object ?? "") &&
        forbiddenMembers[object]?.includes(name)
      ) {
        add(`${object}.${name}`)
      }
      if (object === "Promise" && name !== undefined) add(`Promise.${name}`)
    }
    if (node.type === "NewExpression") {
      if (node["callee"].name === "Promise") add("new Promise")
      if (node["callee"].name === "Date" && node["arguments"].length === 0) add("new Date()")
    }
    if (node.type === "ImportDeclaration" && /^(node:)?timers(\/promises)?$/.test(node["source"].value))
      add("timers")
    if (node["async"] === true) add("async")
    if (node.type === "AwaitExpression" || (node.type === "ForOfStatement" && node["await"] === true))
      add("await")
    if (isCall(node)) {
      const callee: Node = node["callee"]
      const method = isMember(callee) ? memberOf(callee) : undefined
      const floats =
        (parent?.type === "ExpressionStatement" && key === "expression") ||
        (parent?.type === "UnaryExpression" && parent["operator"] === "void")
      const ofPromise = /^(then|catch|finally)$/.test(method ?? "") && !isModule(callee["object"])
      if (ofPromise) add(`.${method}()`)
      if (floats && (ofPromise || asynchronous.has(callee["name"]) || parent?.type === "UnaryExpression")) {
        add("floating promise")
      }
    }
  })
  return [...found.values()]
}

/** No work without an owner, no promises, no wall clock and no chance, other than in the listed places. */
export const forbidden = (
  sources: ReadonlyArray<Source>,
  exceptions: ReadonlyArray<Exception>
): ReadonlyArray<string> => {
  const used = new Set<Exception>()
  const violations = sources.filter(isSource).flatMap((source) =>
    forbiddenIn(source).flatMap(({ what, where }) => {
      const listed = exceptions.find((entry) => entry.file === source.path && entry.what === what)
      if (listed !== undefined) used.add(listed)
      return listed === undefined ? [`${where} uses ${what}`] : []
    })
  )
  const paths = new Set(sources.map(({ path }) => path))
  return [
    ...violations,
    ...exceptions.flatMap((entry) => {
      const name = `the exception for ${entry.what} in ${entry.file}`
      if (entry.reason.trim() === "") return [`${name} has no reason`]
      if (!paths.has(entry.file)) return [`${name} names a file that does not exist`]
      return used.has(entry) ? [] : [`${name} is not needed`]
    })
  ]
}

/** A file in `src/internal` opens with a block comment that has a heading "Invariants". */
export const invariants = (sources: ReadonlyArray<Source>): ReadonlyArray<string> =>
  sources
    .filter(({ path }) => /^packages\/[^/]+\/src\/internal\/.*\.ts$/.test(path))
    .filter(({ text }) => {
      const header = /^\s*\/\*([\s\S]*?)\*\//.exec(text)?.[1] ?? ""
      return !/^[\s*]*(#+ |\*\*)?Invariants\b/m.test(header)
    })
    .map(({ path }) => `${path} does not open with its invariants`)

const declarations =
  /^(VariableDeclaration|FunctionDeclaration|TSDeclareFunction|ClassDeclaration|TS(Interface|TypeAlias|Module|Enum)Declaration)$/

/** Each public export has a doc comment; of overloads, the first one. */
export const undocumented = (sources: ReadonlyArray<Source>): ReadonlyArray<string> =>
  sources
    .filter(({ path }) => /^packages\/[^/]+\/src\/[^/]+\.ts$/.test(path))
    .flatMap((source) => {
      let previous = ""
      return (treeOf(source)["program"].body as ReadonlyArray<Node>).flatMap((node) => {
        const declaration: Node | undefined = /^Export(Named|Default)Declaration$/.test(node.type)
          ? (node["declaration"] ?? undefined)
          : undefined
        const name: string = declaration?.["id"]?.name ?? declaration?.["declarations"]?.[0]?.id?.name ?? ""
        const overload = declaration?.type.endsWith("Function") || declaration?.type === "FunctionDeclaration"
        const repeats = overload && name !== "" && name === previous
        previous = overload ? name : ""
        if (declaration === undefined || !declarations.test(declaration.type) || repeats) return []
        return node.leadingComments?.at(-1)?.type === "CommentBlock" &&
          node.leadingComments.at(-1)?.value.startsWith("*")
          ? []
          : [`${at(source, node)} exports ${name || "a default"} without a doc comment`]
      })
    })

/** Each package has a README. */
export const readmes = (
  packages: ReadonlyArray<string>,
  paths: ReadonlyArray<string>
): ReadonlyArray<string> =>
  packages
    .filter((name) => !paths.includes(`packages/${name}/README.md`))
    .map((name) => `packages/${name} has no README.md`)
