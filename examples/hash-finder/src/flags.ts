/** Flags with a value each, `--port=50051` or `--port 50051`, and `--help`. Every mistake has a sentence. */
interface Flag<A> {
  readonly usual: A
  readonly help: string
  /** What it takes, as it stands in the sentence about a mistake; none for a switch. */
  readonly takes?: string
  readonly read: (text: string) => A | undefined
}

type Flags = Readonly<Record<string, Flag<unknown>>>
type Values<F extends Flags> = { readonly [K in keyof F]: F[K] extends Flag<infer A> ? A : never }

export const number = (usual: number, least: number, most: number, help: string): Flag<number> => ({
  usual,
  help,
  takes: `a whole number from ${least} to ${most}`,
  read: (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    return value >= least && value <= most ? value : undefined
  }
})

export const text = (usual: string, pattern: RegExp, takes: string, help: string): Flag<string> => ({
  usual,
  help,
  takes,
  read: (text) => (pattern.test(text) ? text : undefined)
})

export const toggle = (help: string): Flag<boolean> => ({ usual: false, help, read: () => true })

export type Parsed<F extends Flags> =
  | { readonly values: Values<F> }
  | { readonly help: string }
  | { readonly problem: string }

export const parseFlags = <const F extends Flags>(
  about: string,
  flags: F,
  args: ReadonlyArray<string>
): Parsed<F> => {
  const values = Object.fromEntries(Object.entries(flags).map(([name, { usual }]) => [name, usual]))
  for (let index = 0; index < args.length; index++) {
    const arg = args[index] as string
    if (arg === "--help" || arg === "-h") return { help: helpOf(about, flags) }
    const [, name = "", inline] = /^--([^=]+)(?:=(.*))?$/s.exec(arg) ?? []
    const flag = Object.hasOwn(flags, name) ? flags[name] : undefined
    if (flag === undefined) {
      const known = Object.keys(flags).map((name) => `--${name}`)
      return { problem: `There is no flag "${arg}"; use ${known.join(", ")} or --help.` }
    }
    if (flag.takes === undefined && inline !== undefined) {
      return { problem: `--${name} takes no value; write just --${name}.` }
    }
    const given = flag.takes === undefined ? "" : (inline ?? args[++index] ?? "")
    const value = flag.read(given)
    if (value === undefined) return { problem: `--${name} takes ${flag.takes}, not "${given}".` }
    values[name] = value
  }
  return { values: values as Values<F> }
}

const helpOf = (about: string, flags: Flags): string => {
  const rows = Object.entries(flags).map(([name, { help, takes, usual }]) => [
    takes === undefined ? `--${name}` : `--${name}=${usual}`,
    help
  ])
  const width = Math.max(...rows.map(([left = ""]) => left.length))
  return [about, "", ...rows.map(([left = "", help]) => `  ${left.padEnd(width)}  ${help}`)].join("\n")
}

/** The values; or else the process ends, with 0 after `--help` and with 2 after a mistake. */
export const readFlags = <const F extends Flags>(about: string, flags: F): Values<F> => {
  const parsed = parseFlags(about, flags, process.argv.slice(2))
  if ("values" in parsed) return parsed.values
  if ("help" in parsed) console.log(parsed.help)
  else console.error(parsed.problem)
  process.exit("help" in parsed ? 0 : 2)
}
