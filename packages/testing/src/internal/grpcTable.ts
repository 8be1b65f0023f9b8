/**
 * Outcomes as a table.
 *
 * Invariants
 * 1. Rows and columns stand in the order in which their first outcome came.
 * 2. Nothing that was measured stands in the table, so that the same behaviour gives the same text.
 */
import type { GrpcOutcome } from "../grpcDisconnects.ts"

const unique = (all: ReadonlyArray<string>): ReadonlyArray<string> => [...new Set(all)]

export const tableOf = (given: Iterable<GrpcOutcome>): string => {
  const outcomes = [...given]
  const columns = unique(outcomes.map(({ column }) => column))
  const rows = unique(outcomes.map(({ departure, kind }) => `${departure} | ${kind}`))
  const lines = rows.map((row) => {
    const own = outcomes.filter(({ departure, kind }) => `${departure} | ${kind}` === row)
    const cells = columns.map((wanted) => own.find(({ column }) => column === wanted)?.handler ?? "–")
    const client = unique(own.map((outcome) => outcome.client)).join(", ")
    return `| ${row} | ${cells.join(" | ")} | ${client} |`
  })
  const head = ["what happens", "kind", ...columns, "the client gets"]
  return [`| ${head.join(" | ")} |`, `|${head.map(() => "---").join("|")}|`, ...lines].join("\n")
}
