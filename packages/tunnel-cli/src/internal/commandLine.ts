/**
 * From words to a command with its values, or to one sentence about the first mistake.
 *
 * **Invariants**
 * 1. Pure but for what it is given: neither the process nor the terminal is touched.
 * 2. Every mistake is one sentence that says what to do.
 * 3. A secret never stands in a sentence.
 */
import { Command, CommanderError, Option } from "commander"
import {
  type AgentFlags,
  type CommandName,
  type ConnectFlags,
  commands,
  type Flag,
  type GatewayFlags,
  type StatusFlags,
  variableOf
} from "./flags.ts"
import { examples, program, summaries } from "./help.ts"
import { Takes } from "./values.ts"

export type Parsed =
  | { readonly _tag: "gateway"; readonly flags: GatewayFlags }
  | { readonly _tag: "agent"; readonly flags: AgentFlags }
  | { readonly _tag: "connect"; readonly flags: ConnectFlags }
  | { readonly _tag: "status"; readonly flags: StatusFlags }
  | { readonly _tag: "text"; readonly text: string }
  | { readonly _tag: "mistake"; readonly sentence: string }

class Mistake extends Error {}

type Environment = Readonly<Record<string, string | undefined>>

const optionOf = (flag: Flag<unknown>): Option => {
  const spelled = flag.value === undefined ? `--${flag.name}` : `--${flag.name} <${flag.value}>`
  const needed = flag.needed === undefined ? "" : "needed, "
  const usual = flag.usual === undefined ? "" : `default: ${flag.usual}, `
  return new Option(spelled, `${flag.about} (${needed}${usual}env: ${variableOf(flag)})`)
}

/** The value of one flag: from the command line, the environment, or its default. */
const settled = (flag: Flag<unknown>, given: unknown, environment: Environment, command: string): unknown => {
  const variable = variableOf(flag)
  // A switch has no value on the command line.
  if (given === true) return true
  const fromVariable = environment[variable]
  const where = given === undefined && fromVariable !== undefined ? variable : `--${flag.name}`
  const text = typeof given === "string" ? given : (fromVariable ?? flag.usual)
  if (text === undefined) {
    if (flag.needed === undefined) return flag.value === undefined ? false : undefined
    throw new Mistake(`${command} needs ${flag.needed} or the like: ${flag.about}.`)
  }
  const value = flag.read(text)
  if (!(value instanceof Takes)) return value
  throw new Mistake(`${where} takes ${value.what}${flag.secret === true ? "" : `, not "${text}"`}.`)
}

const known = (name: string): name is CommandName => Object.hasOwn(commands, name)

/** One sentence out of what commander says about words that it does not know. */
const sentenceOf = (error: CommanderError, command: string): string => {
  const [, nearest] = /Did you mean (?:one of )?([^?,)]+)/.exec(error.message) ?? []
  const see = nearest === undefined ? `see curfew-tunnel ${command}--help` : `did you mean ${nearest}?`
  const end = nearest === undefined ? "." : ""
  const [, word = ""] = /'([^']*)'/.exec(error.message) ?? []
  switch (error.code) {
    case "commander.unknownOption":
      return `There is no flag ${word}; ${see}${end}`
    case "commander.unknownCommand":
      return `There is no command ${word}; ${nearest === undefined ? "use gateway, agent, connect or status." : see}`
    case "commander.optionMissingArgument":
      return `${word.split(" ")[0]} needs a value after it: ${word}.`
    case "commander.excessArguments":
      return `curfew-tunnel ${command}takes flags only; ${see}${end}`
    default:
      return error.message
        .replace(/^error: /, "")
        .split("\n")
        .join(" ")
  }
}

/** Reads the words behind the program's name. */
export const parse = (words: ReadonlyArray<string>, environment: Environment, version: string): Parsed => {
  let parsed: Parsed | undefined
  let printed = ""
  const print = {
    writeOut: (text: string) => (printed += text),
    writeErr: () => undefined,
    outputError: () => undefined
  }
  const root = new Command("curfew-tunnel")
    .description(program)
    .version(version, "--version", "print the version")
    .helpOption("--help", "print this help; `curfew-tunnel agent --help` tells about a command")
    .helpCommand(false)
    .configureHelp({ helpWidth: 118 })
    .configureOutput(print)
    .exitOverride()
  for (const [name, flags] of Object.entries(commands)) {
    const table = flags as Readonly<Record<string, Flag<unknown>>>
    const command = root
      .command(name)
      .summary(summaries[name as CommandName])
      .description(examples[name as CommandName])
      .helpOption("--help", "print this help")
      .allowExcessArguments(false)
      .configureOutput(print)
      .exitOverride()
    for (const flag of Object.values(table)) command.addOption(optionOf(flag))
    command.action((given: Record<string, unknown>) => {
      const values: Record<string, unknown> = {}
      for (const [field, flag] of Object.entries(table)) {
        values[field] = settled(flag, given[camel(flag.name)], environment, `curfew-tunnel ${name}`)
      }
      parsed = { _tag: name, flags: values } as unknown as Parsed
    })
  }
  const [first = ""] = words
  const command = known(first) ? `${first} ` : ""
  if (words.length === 0) {
    return {
      _tag: "mistake",
      sentence: "Say what to run: curfew-tunnel gateway, agent, connect or status; --help tells more."
    }
  }
  try {
    root.parse(words, { from: "user" })
    return (
      parsed ?? {
        _tag: "mistake",
        sentence: "Use curfew-tunnel gateway, agent, connect or status; --help tells more."
      }
    )
  } catch (error) {
    if (error instanceof Mistake) return { _tag: "mistake", sentence: error.message }
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return { _tag: "text", text: printed.trimEnd() }
    return { _tag: "mistake", sentence: sentenceOf(error, command) }
  }
}

const camel = (name: string): string => name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())
