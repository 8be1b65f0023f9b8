/** The table, the list of survivors with their explanations, and docs/mutation.md. */
import type { Result } from "./campaign.ts"
import { kinds, nameOf, placeOf } from "./mutants.ts"
import { hash, type Project, packageOf } from "./project.ts"

export interface Tally {
  readonly name: string
  readonly mutants: number
  readonly killed: number
  readonly timedOut: number
  readonly survived: number
  readonly ruledOut: number
}

export const tallies = (results: ReadonlyArray<Result>): ReadonlyArray<Tally> =>
  [...new Set(results.map(({ mutant }) => packageOf(mutant.file)))].map((name) => {
    const here = results.filter(({ mutant }) => packageOf(mutant.file) === name)
    const count = (verdict: Result["verdict"]) => here.filter((result) => result.verdict === verdict).length
    return {
      name,
      mutants: here.length,
      killed: count("killed"),
      timedOut: count("timed out"),
      survived: count("survived"),
      ruledOut: count("ruled out")
    }
  })

/** Of the mutants that compile, how many a test notices; in per cent, rounded down to a tenth. */
export const scoreOf = ({ killed, survived, timedOut }: Tally): string => {
  const all = killed + timedOut + survived
  return all === 0 ? "–" : (Math.floor((1000 * (killed + timedOut)) / all) / 10).toFixed(1)
}

/** `name of the mutant`, and indented below it why no test notices. */
export const readExplanations = (text: string): ReadonlyMap<string, string> => {
  const found = new Map<string, string>()
  let name = ""
  for (const line of text.split("\n")) {
    if (line.trim() === "" || line.startsWith("#")) continue
    if (!/^\s/.test(line)) {
      name = line.trim()
      found.set(name, "")
    } else found.set(name, `${found.get(name) ?? ""} ${line.trim()}`.trim())
  }
  return found
}

/** One sentence for each survivor without an explanation and each explanation without a survivor. */
export const complaints = (
  results: ReadonlyArray<Result>,
  explanations: ReadonlyMap<string, string>,
  packages: ReadonlyArray<string>
): ReadonlyArray<string> => {
  const survivors = new Map(
    results.filter(({ verdict }) => verdict === "survived").map((result) => [nameOf(result.mutant), result])
  )
  return [
    ...[...survivors]
      .filter(([name]) => (explanations.get(name) ?? "") === "")
      .map(
        ([name, { mutant, reachedBy }]) =>
          `${placeOf(mutant)} survived ${reachedBy} test files: write the test that notices, or explain "${name}".`
      ),
    ...[...explanations.keys()]
      .filter((name) => packages.includes(packageOf(name)) && !survivors.has(name))
      .map((name) => `"${name}" is explained and does not survive: take the explanation out.`)
  ]
}

const row = (tally: Tally): string =>
  `| ${[tally.name, tally.mutants, tally.killed, tally.timedOut, tally.ruledOut, tally.survived, `${scoreOf(tally)} %`].join(" | ")} |`

const rowsIn = (document: string): ReadonlyMap<string, string> =>
  new Map([...document.matchAll(/^\| ([a-z]+) \| \d.*$/gm)].map(([line, name]) => [name as string, line]))

const sectionsIn = (document: string): ReadonlyMap<string, string> =>
  new Map(
    [...document.matchAll(/^## ([a-z]+)\n\n([\s\S]*?)(?=\n## |\n<!-- |$(?![\s\S]))/gm)].map(
      ([, name, body]) => [name as string, (body as string).trim()]
    )
  )

const inTable = (code: string): string => code.replaceAll("|", "\\|")

/** What of a project the document says: which packages there are, and what their sources are by now. */
export type Measured = Pick<Project, "packages" | "sources" | "text">

/** Which sources the row of each package was measured over. */
const sumsIn = (document: string): ReadonlyMap<string, string> =>
  new Map(
    [...document.matchAll(/^<!-- measured over ([a-z]+) ([0-9a-f]+) -->$/gm)].map(([, name, sum]) => [
      name as string,
      sum as string
    ])
  )

/** The document, with the packages of this campaign measured anew and the others as they stand in it. */
export const documentOf = (
  results: ReadonlyArray<Result>,
  explanations: ReadonlyMap<string, string>,
  { packages, sources, text }: Measured,
  before: string
): string => {
  const measured = new Map(tallies(results).map((tally) => [tally.name, tally]))
  const rows = packages.flatMap((name) => {
    const tally = measured.get(name)
    return tally === undefined ? (rowsIn(before).get(name) ?? []) : row(tally)
  })
  const sections = packages.flatMap((name) => {
    const survivors = results.filter(
      ({ mutant, verdict }) => packageOf(mutant.file) === name && verdict === "survived"
    )
    const body = measured.has(name)
      ? survivors.map(
          ({ mutant }) =>
            `- \`${placeOf(mutant)}\` \`${mutant.code}\`: ${explanations.get(nameOf(mutant)) ?? ""}`
        )
      : (sectionsIn(before).get(name)?.split("\n") ?? [])
    return body.length === 0 ? [] : [`## ${name}\n\n${body.join("\n")}\n`]
  })
  const sumOf = (name: string): string => hash(...sources(name).map((path) => path + text(path)))
  const sums = packages.flatMap((name) => {
    const sum = measured.has(name) ? sumOf(name) : sumsIn(before).get(name)
    return sum === undefined ? [] : [[name, sum] as const]
  })
  // Without its sum a row is of unknown age.
  const current = new Set(sums.filter(([name, sum]) => sum === sumOf(name)).map(([name]) => name))
  const old = packages.filter(
    (name) => !current.has(name) && (measured.has(name) || rowsIn(before).has(name))
  )
  const note =
    old.length === 0
      ? ""
      : `\nThe sources of ${old.join(", ")} have changed since they were tried: their rows, and what is listed of them below, are of before.\n`
  const list = Object.entries(kinds).map(([kind, what]) => `| ${kind} | ${inTable(what)} |`)
  return `# Mutants

\`npm run mutate\` takes out one mask, finalizer, hand-over, mark or guard after the other and runs the tests that come
by that place: some test has to fail or hang. Written by the script; a survivor without an explanation in
\`scripts/mutate/survivors.txt\` fails it. What does not compile is ruled out and does not count for the score.

| package | mutants | killed | by time-out | ruled out | survived | score |
|---|---|---|---|---|---|---|
${rows.join("\n")}
${note}
| kind | what is done |
|---|---|
${list.join("\n")}

${sections.join("\n")}
${sums.map(([name, sum]) => `<!-- measured over ${name} ${sum} -->`).join("\n")}`
    .trimEnd()
    .concat("\n")
}
