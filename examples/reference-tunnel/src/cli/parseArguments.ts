import { type Plant, plants } from "../process/plantNames.ts"

/** What a process of this program is to do. Plain data: the parent sends it to its children. */
export type Command =
  | { readonly _tag: "help" }
  | { readonly _tag: "up"; readonly once: boolean; readonly port: number; readonly plant: Plant | undefined }
  | { readonly _tag: "backend"; readonly port: number; readonly plant: boolean }
  | { readonly _tag: "gateway"; readonly port: number; readonly tunnelPort: number }
  | { readonly _tag: "agent"; readonly gateway: string; readonly backend: string; readonly plant: boolean }
  | { readonly _tag: "client"; readonly gateway: string; readonly plant: boolean }
  | {
      readonly _tag: "call"
      readonly gateway: string
      readonly word: string
      readonly distance: number
      readonly range: boolean
      readonly count: number
      readonly maxHashes: number
      readonly timeout: number | undefined
    }

export type Parsed = { readonly command: Command } | { readonly problem: string }

/** The roles that are started by hand, and the flags that each knows. */
const flags: Readonly<Record<string, ReadonlyArray<string>>> = {
  "": ["once", "plant", "port"],
  backend: ["port"],
  gateway: ["port", "tunnel-port"],
  agent: ["gateway", "backend"],
  call: ["gateway", "word", "distance", "range", "count", "max-hashes", "timeout"]
}

const switches: ReadonlyArray<string> = ["once", "range"]

/** Where the roles look for each other when nobody says otherwise. */
export const usual = { gateway: 50051, tunnel: 50052, backend: 50053 } as const

/** Reads the command line: a command, or one sentence that says what is wrong with it. */
export const parseArguments = (args: ReadonlyArray<string>): Parsed => {
  if (args.includes("--help") || args.includes("-h")) return { command: { _tag: "help" } }
  const [first = ""] = args
  const role = first.startsWith("-") ? "" : first
  const known = flags[role]
  if (known === undefined) {
    return {
      problem: `There is no role "${role}"; there are ${listed(Object.keys(flags).filter((it) => it !== ""))}.`
    }
  }
  const given = read(args.slice(role === "" ? 0 : 1), known, role)
  return "problem" in given ? given : build(role, new Values(given.values))
}

type Given = ReadonlyMap<string, string>

const read = (
  args: ReadonlyArray<string>,
  known: ReadonlyArray<string>,
  role: string
): { readonly values: Given } | { readonly problem: string } => {
  const values = new Map<string, string>()
  for (let index = 0; index < args.length; index++) {
    const arg = args[index] as string
    const [, name = "", inline] = /^--([^=]*)(?:=(.*))?$/s.exec(arg) ?? []
    if (name === "") return { problem: `"${arg}" is not a flag; see --help.` }
    if (!known.includes(name)) {
      const whose = role === "" ? "npm run reference" : `the ${role}`
      return { problem: `Unknown flag --${name}; ${whose} knows ${listed(known.map((it) => `--${it}`))}.` }
    }
    if (switches.includes(name)) {
      if (inline !== undefined) return { problem: `--${name} takes no value.` }
      values.set(name, "")
      continue
    }
    const value = inline ?? args[++index]
    if (value === undefined || value === "" || (inline === undefined && value.startsWith("--"))) {
      return { problem: `--${name} needs a value: --${name}=…` }
    }
    values.set(name, value)
  }
  return { values }
}

/** Collects the first problem while values are read, so that a command can be written down in one expression. */
class Values {
  readonly #given: Given
  problem: string | undefined

  constructor(given: Given) {
    this.#given = given
  }

  has(name: string): boolean {
    return this.#given.has(name)
  }

  text(name: string, otherwise: string): string {
    return this.#given.get(name) ?? otherwise
  }

  #wrong(name: string, wanted: string): void {
    this.problem ??= `--${name} takes ${wanted}, not "${this.#given.get(name)}".`
  }

  number(name: string, otherwise: number, most: number, wanted: string): number {
    const value = this.#given.get(name)
    if (value === undefined) return otherwise
    const number = /^\d+$/.test(value) ? Number(value) : Number.NaN
    if (number <= most) return number
    this.#wrong(name, wanted)
    return otherwise
  }

  port(name: string, otherwise: number): number {
    return this.number(name, otherwise, 65_535, "a port, 0 to 65535")
  }

  address(name: string, otherwise: number): string {
    const value = this.#given.get(name) ?? `127.0.0.1:${otherwise}`
    const port = Number(/^[^\s:]+:(\d{1,5})$/.exec(value)?.[1] ?? Number.NaN)
    if (!(port <= 65_535)) this.#wrong(name, "an address such as 127.0.0.1:50051")
    return value
  }

  choice<A extends string>(name: string, choices: ReadonlyArray<A>): A | undefined {
    const value = this.#given.get(name)
    if (value === undefined) return undefined
    const chosen = choices.find((it) => it === value)
    if (chosen === undefined) this.#wrong(name, listed(choices, "or"))
    return chosen
  }
}

const largest = 4_294_967_295

const build = (role: string, values: Values): Parsed => {
  const command = commandOf(role, values)
  if (values.problem !== undefined) return { problem: values.problem }
  if (command._tag === "up" && command.plant !== undefined && !command.once) {
    return { problem: "--plant needs --once: a planted fault is there to be measured." }
  }
  return { command }
}

const commandOf = (role: string, values: Values): Command => {
  const number = (name: string, otherwise: number) =>
    values.number(name, otherwise, largest, `a whole number up to ${largest}`)
  switch (role) {
    case "backend":
      return { _tag: "backend", port: values.port("port", usual.backend), plant: false }
    case "gateway":
      return {
        _tag: "gateway",
        port: values.port("port", usual.gateway),
        tunnelPort: values.port("tunnel-port", usual.tunnel)
      }
    case "agent":
      return {
        _tag: "agent",
        gateway: values.address("gateway", usual.tunnel),
        backend: values.address("backend", usual.backend),
        plant: false
      }
    case "call":
      return {
        _tag: "call",
        gateway: values.address("gateway", usual.gateway),
        word: values.text("word", "cat"),
        distance: number("distance", 1),
        range: values.has("range"),
        count: number("count", 0),
        maxHashes: number("max-hashes", 0),
        timeout: values.has("timeout") ? number("timeout", 0) : undefined
      }
    default:
      return {
        _tag: "up",
        once: values.has("once"),
        port: values.port("port", 0),
        plant: values.choice("plant", plants)
      }
  }
}

const listed = (names: ReadonlyArray<string>, last: "and" | "or" = "and"): string =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} ${last} ${names.at(-1)}`
