import { type Row, reached } from "./row.ts"

/** Three digits that say something, no exponents. */
export const figure = (value: number): string => {
  const size = Math.abs(value)
  if (size >= 100) return Math.round(value).toLocaleString("en")
  if (size >= 10) return value.toFixed(1)
  if (size >= 1) return value.toFixed(2)
  return size >= 0.01 || size === 0 ? value.toFixed(3) : value.toPrecision(2)
}

export const heads: ReadonlyArray<string> = [
  "",
  "row",
  "ours",
  "peer",
  "unit",
  "compared with",
  "ratio",
  "range",
  "at least",
  "rounds"
]
export const rightAligned: ReadonlySet<string> = new Set(["ours", "peer", "ratio", "at least", "rounds"])

/** What stands of a row under the heads. */
export const figures = (row: Row): ReadonlyArray<string> => [
  reached(row) ? "✓" : "✗",
  row.row,
  figure(row.ours),
  figure(row.peer),
  row.unit,
  row.peerName,
  figure(row.ratio),
  row.range.map(figure).join(" – "),
  figure(row.target),
  String(row.rounds)
]

/** The rows below each other, what is noted of one below it; ✓ where its target is reached, ✗ where not. */
export const table = (rows: ReadonlyArray<Row>): string => {
  const lines = rows.map(figures)
  const widths = heads.map((head, column) =>
    Math.max(head.length, ...lines.map((line) => line[column]?.length ?? 0))
  )
  const line = (texts: ReadonlyArray<string>): string =>
    texts
      .map((text, column) => {
        const width = widths[column] as number
        return rightAligned.has(heads[column] as string) ? text.padStart(width) : text.padEnd(width)
      })
      .join("  ")
      .trimEnd()
  return [
    line(heads),
    ...lines.flatMap((texts, index) => {
      const note = rows[index]?.note
      return note === undefined ? [line(texts)] : [line(texts), `     ${note}`]
    })
  ].join("\n")
}
