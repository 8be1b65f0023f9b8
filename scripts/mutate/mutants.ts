/**
 * Finds the places of a source file where a cancellation could go wrong by one line, and writes each of them down
 * as a mutant: the file with that one mask, finalizer, hand-over, mark or guard taken out.
 */
import {
  isCall,
  isMember,
  memberOf,
  type Node,
  type Source,
  treeOf,
  walk
} from "../../test/support/architecture.ts"

export const kinds = {
  mask: "a mask is taken off",
  opening: "an interruptible region inside a mask stays masked",
  finalizer: "a finalizer is not set up",
  handover: "a call that hands over, ends or tells is left out",
  wait: "what had to come first is left out",
  mark: "a mark that something has happened is not set",
  first: "a guard that returns early is taken out",
  guard: "the condition around a hand-over or a mark is negated"
} as const

type Kind = keyof typeof kinds

export interface Mutant {
  readonly file: string
  readonly line: number
  readonly kind: Kind
  /** The code that goes, in one line: with the file and the kind it names the mutant whatever its line. */
  readonly code: string
  readonly start: number
  readonly end: number
  readonly replacement: string
  /** What has to be evaluated for the mutant to matter: an expression's place. */
  readonly site: readonly [start: number, end: number]
  /** The site is a statement by itself: without a semicolon before it, a parenthesis would make it an argument. */
  readonly statement: boolean
}

export const nameOf = ({ code, file, kind }: Mutant): string => `${file} ${kind} ${code}`

export const placeOf = ({ file, kind, line }: Mutant): string => `${file}:${line}:${kind}`

export const apply = (text: string, { end, replacement, start }: Mutant): string =>
  text.slice(0, start) + replacement + text.slice(end)

/**
 * The text with a call of `globalThis.__reached?.(base + i)` at the site of the i-th mutant. It behaves as before and tells
 * which mutants a test comes by.
 */
export const instrument = (text: string, mutants: ReadonlyArray<Mutant>, base = 0): string => {
  const insertions = mutants.flatMap(({ site: [start, end], statement }, i) => [
    // At one place what is inside closes first, and the wider site opens first.
    {
      at: start,
      rank: text.length - end,
      text: `${statement ? "void " : ""}(globalThis.__reached?.(${base + i}), `
    },
    { at: end, rank: -start - 1, text: ")" }
  ])
  insertions.sort((a, b) => a.at - b.at || a.rank - b.rank)
  let from = 0
  let out = ""
  for (const { at, text: inserted } of insertions) {
    out += text.slice(from, at) + inserted
    from = at
  }
  return out + text.slice(from)
}

/** Calls that give something away, back or on; in a place where nobody looks at their result. */
const handOver = new RegExp(
  `^(${[
    "abandon\\w*",
    "abort",
    "add\\w*",
    "adopt\\w*",
    "arm\\w*",
    "attempt",
    "await\\w*",
    "cancel\\w*",
    "cleanUp",
    "clear\\w*",
    "close\\w*",
    "delete",
    "deliver\\w*",
    "disarm\\w*",
    "drain\\w*",
    "end\\w*",
    "escalate\\w*",
    "fail\\w*",
    "finish\\w*",
    "fire\\w*",
    "follow\\w*",
    "forget\\w*",
    "giveAway",
    "hand\\w*",
    "hang",
    "hold\\w*",
    "idle",
    "inherit",
    "interrupt\\w*",
    "leave\\w*",
    "lease\\w*",
    "link\\w*",
    "listen\\w*",
    "listener",
    "log\\w*",
    "moveTo",
    "notify\\w*",
    "on[A-Z]\\w*",
    "pend",
    "push",
    "reject\\w*",
    "release\\w*",
    "remove\\w*",
    "report\\w*",
    "reset\\w*",
    "resolve\\w*",
    "resume\\w*",
    "retire\\w*",
    "schedule\\w*",
    "settle\\w*",
    "set[A-Z]\\w*",
    "set",
    "signal\\w*",
    "spread",
    "start\\w*",
    "stop\\w*",
    "succeed\\w*",
    "take\\w*",
    "tell\\w*",
    "unlink\\w*",
    "unshift",
    "update\\w*"
  ].join("|")})$`
)

const calleeOf = (node: Node): string | undefined => {
  const callee: Node = node["callee"]
  if (callee.type === "Identifier") return callee["name"]
  if (!isMember(callee)) return undefined
  return callee["property"].type === "PrivateName" ? callee["property"].id.name : memberOf(callee)
}

/** `Effect.ensuring`: the module and the function of a call. */
const functionOf = (node: Node): string | undefined => {
  if (!isCall(node) || !isMember(node["callee"])) return undefined
  const object: Node = node["callee"].object
  return object.type === "Identifier" ? `${object["name"]}.${memberOf(node["callee"])}` : undefined
}

/** A call of a module's function. */
const isModule = (node: Node): boolean => /^[A-Z]/.test(node["callee"].object?.name ?? "")

const isFunction = (node: Node | undefined): node is Node =>
  /^(ArrowFunctionExpression|FunctionExpression)$/.test(node?.type ?? "")

/** The expression behind `await`, `yield*`, `void` and the right side of `a && b`. */
const bare = (node: Node): Node => {
  if (/^(Await|Yield|Unary)Expression$/.test(node.type) && node["argument"]) return bare(node["argument"])
  if (node.type === "LogicalExpression") return bare(node["right"])
  return node
}

const isHandOver = (node: Node): boolean => {
  if (isCall(node)) return handOver.test(calleeOf(node) ?? "")
  if (!isMember(node)) return false
  return handOver.test(
    node["property"].type === "PrivateName" ? node["property"].id.name : (memberOf(node) ?? "")
  )
}

const isMarkValue = (node: Node): boolean =>
  node.type === "BooleanLiteral" ||
  node.type === "NullLiteral" ||
  (node.type === "Identifier" && node["name"] === "undefined")

const returnsEarly = (node: Node): boolean => {
  const body: ReadonlyArray<Node> = node.type === "BlockStatement" ? node["body"] : [node]
  return /^(Return|Continue|Break)Statement$/.test(body.at(-1)?.type ?? "")
}

const oneLine = (text: string): string => {
  const line = text.replace(/\s+/g, " ").trim()
  return line.length > 70 ? `${line.slice(0, 69)}…` : line
}

interface Change {
  readonly kind: Kind
  /** What is replaced. */
  readonly node: Node
  readonly replacement: string
  /** What has to be evaluated for the change to matter, when that is another place. */
  readonly site?: Node
  /** What to call it, when the code that goes says too little. */
  readonly code?: string
}

/** What a call sets up, holds back or waits for, taken out. */
const changesOfCall = (
  node: Node,
  restores: ReadonlySet<string>,
  textOf: (node: Node) => string
): ReadonlyArray<Change> => {
  const [first, second, third]: ReadonlyArray<Node> = node["arguments"]
  const name = functionOf(node)
  const callee: Node = node["callee"]
  if (first === undefined) return []
  if (callee.type === "Identifier" && restores.has(callee["name"]))
    return [{ kind: "opening", node, replacement: textOf(first) }]
  switch (name) {
    case "Effect.uninterruptible":
      return [{ kind: "mask", node, replacement: textOf(first) }]
    case "Effect.interruptible":
      return [{ kind: "opening", node, replacement: textOf(first) }]
    case "Effect.uninterruptibleMask":
      return [{ kind: "mask", node, replacement: `Effect.suspend(() => (${textOf(first)})((self) => self))` }]
    case "Effect.acquireRelease":
    case "Effect.acquireUseRelease": {
      const release = name === "Effect.acquireRelease" ? second : third
      return release === undefined
        ? []
        : [
            {
              kind: "finalizer",
              node: release,
              replacement: "() => Effect.void",
              code: `${name} … ${textOf(release)}`
            }
          ]
    }
    case "Effect.addFinalizer":
    case "Scope.addFinalizer":
    case "Scope.addFinalizerExit":
      return [{ kind: "finalizer", node, replacement: "Effect.void" }]
    case "Effect.ensuring":
    case "Effect.onExit":
    case "Effect.onExitPrimitive":
    case "Effect.onError":
    case "Effect.onInterrupt":
      return [
        {
          kind: "finalizer",
          node,
          replacement: second === undefined ? "((self) => self)" : textOf(first),
          code: `${name}(…)`
        }
      ]
    case "Effect.callback":
      return isFunction(first) ? changesOfRegistration(first, textOf) : []
    case "Effect.andThen":
    case "Effect.tap":
      return changesOfSequence(name, node, first, second, textOf)
    default:
      return []
  }
}

/** What the registration of a callback returns is run when the wait is interrupted. */
const changesOfRegistration = (registration: Node, textOf: (node: Node) => string): ReadonlyArray<Change> => {
  const body: Node = registration["body"]
  if (body.type !== "BlockStatement") return []
  return (body["body"] as ReadonlyArray<Node>).flatMap((statement): ReadonlyArray<Change> => {
    const returned: Node | null | undefined =
      statement.type === "ReturnStatement" ? statement["argument"] : undefined
    return returned
      ? [
          {
            kind: "finalizer",
            node: returned,
            replacement: "undefined",
            code: `on interrupt: ${textOf(returned)}`
          }
        ]
      : []
  })
}

/** `andThen(a, b)` without its `a`, and `tap(a, b)` without its `b`. */
const changesOfSequence = (
  name: string,
  node: Node,
  first: Node,
  second: Node | undefined,
  textOf: (node: Node) => string
): ReadonlyArray<Change> => {
  if (second === undefined || !/^(Call|Member|Identifier)/.test(first.type)) return []
  if (name === "Effect.tap")
    return [{ kind: "wait", node, replacement: textOf(first), code: `tap ${textOf(second)}` }]
  // What a function of the module makes is plumbing.
  const made = functionOf(first)
  if (made?.startsWith("Effect.") && made !== "Effect.sync") return []
  const replacement = isFunction(second) ? `(${textOf(second)})()` : textOf(second)
  return [{ kind: "wait", node, replacement, code: textOf(first) }]
}

/** A call, or a mark, whose value nobody looks at. */
const changeOfDiscarded = (node: Node, parent: Node | undefined, key: string): Change | undefined => {
  const statement = node.type === "ExpressionStatement"
  const value = node.type === "ArrowFunctionExpression" && node["body"].type !== "BlockStatement"
  if (!statement && (!value || makesEffect(parent, key))) return undefined
  const expression: Node = statement ? node["expression"] : node["body"]
  const action = bare(expression)
  if (isHandOver(action)) {
    // What a function of a module makes is an effect, which somebody else runs.
    const runs = isCall(action)
      ? statement || !isModule(action) || /Unsafe$|^resumeWith$/.test(calleeOf(action) ?? "")
      : expression.type === "YieldExpression"
    const node = expression.type === "LogicalExpression" ? expression["right"] : expression
    return runs ? { kind: "handover", node, replacement: "undefined" } : undefined
  }
  const marks =
    expression.type === "UpdateExpression" ||
    (expression.type === "AssignmentExpression" &&
      (/^[-+]=$/.test(expression["operator"]) ||
        (expression["operator"] === "=" && isMarkValue(expression["right"]))))
  return marks ? { kind: "mark", node: expression, replacement: "undefined" } : undefined
}

/** A guard that returns early never does; a condition around what was `found` is turned round. */
const changeOfGuard = (
  node: Node,
  parent: Node | undefined,
  found: ReadonlySet<Node>,
  textOf: (node: Node) => string
): Change | undefined => {
  const test: Node = node["test"]
  const { alternate, consequent } = node
  if (returnsEarly(consequent) && !alternate && parent?.["alternate"] !== node)
    return { kind: "first", node: test, replacement: "false", code: `if (${textOf(test)}) return` }
  const around = [consequent, alternate].some((branch: Node | null) => {
    if (!branch) return false
    const body: ReadonlyArray<Node> = branch.type === "BlockStatement" ? branch["body"] : [branch]
    return body.some((statement) => found.has(statement))
  })
  return around
    ? { kind: "guard", node: test, replacement: `!(${textOf(test)})`, code: `if (${textOf(test)})` }
    : undefined
}

export const mutantsOf = (source: Source): ReadonlyArray<Mutant> => {
  const { path, text } = source
  const textOf = (node: Node): string => text.slice(node.start, node.end)
  const changes: Array<Change> = []
  const restores = new Set<string>()
  const statements = new Set<number>()
  const discarding = new Set<Node>()
  const tree = treeOf(source)

  walk(tree, (node, parent, key) => {
    if (node.type === "ExpressionStatement") statements.add(node.start)
    if (isCall(node)) {
      const callback: Node | undefined = node["arguments"][0]
      if (functionOf(node) === "Effect.uninterruptibleMask" && isFunction(callback)) {
        const restore: Node | undefined = callback["params"][0]
        if (restore !== undefined) restores.add(restore["name"])
      }
      changes.push(...changesOfCall(node, restores, textOf))
    }
    if (node.type === "ObjectProperty" && textOf(node) === "uninterruptible: true")
      changes.push({ kind: "mask", node: node["value"], replacement: "false", code: textOf(node) })
    if (node.type === "TryStatement" && node["finalizer"]) {
      const statement: Node | undefined = node["finalizer"].body[0]
      if (statement?.type === "ExpressionStatement") {
        changes.push({
          kind: "finalizer",
          node: node["finalizer"],
          replacement: "{}",
          site: statement["expression"],
          code: `finally ${textOf(node["finalizer"])}`
        })
      }
    }
    const discarded = changeOfDiscarded(node, parent, key)
    if (discarded !== undefined) {
      discarding.add(node)
      changes.push(discarded)
    }
  })

  // Guards come second: whether one stands around a hand-over is known by now.
  walk(tree, (node, parent) => {
    const change = node.type === "IfStatement" ? changeOfGuard(node, parent, discarding, textOf) : undefined
    if (change !== undefined) changes.push(change)
  })

  const real = changes.filter(({ node, replacement }) => textOf(node) !== replacement)
  return distinct(
    real.map(({ code, kind, node, replacement, site = node }) => ({
      file: path,
      line: node.loc.start.line,
      kind,
      code: oneLine(code ?? textOf(node)),
      start: node.start,
      end: node.end,
      replacement,
      site: [site.start, site.end],
      statement: statements.has(site.start)
    }))
  )
}

/** `Effect.suspend(() => release)`: the value of the function is the effect, so nothing is discarded. */
const makesEffect = (parent: Node | undefined, key: string): boolean =>
  parent !== undefined &&
  key === "arguments" &&
  /^Effect\.(suspend|flatMap|map|as|andThen|matchCauseEffect|gen|withFiber)$/.test(functionOf(parent) ?? "")

/** In the order of the text, each once; a second one of the same name says so. */
const distinct = (mutants: ReadonlyArray<Mutant>): ReadonlyArray<Mutant> => {
  const seen = new Set<string>()
  const names = new Map<string, number>()
  return [...mutants]
    .sort((a, b) => a.start - b.start || b.end - a.end)
    .filter((mutant) => {
      const key = `${mutant.start} ${mutant.end} ${mutant.replacement}`
      return !seen.has(key) && seen.add(key)
    })
    .map((mutant) => {
      const count = (names.get(nameOf(mutant)) ?? 0) + 1
      names.set(nameOf(mutant), count)
      return count === 1 ? mutant : { ...mutant, code: `${mutant.code} #${count}` }
    })
}
