import type { Style } from "./timeline.ts"

/** What is known of the place where the lines go. */
export interface Terminal {
  readonly isTTY: boolean
  readonly columns: number | undefined
  readonly env: Readonly<Record<string, string | undefined>>
}

/** Symbols and colours only for a person at a terminal; `NO_COLOR` and a terminal that says `dumb` are believed. */
export const styleFor = ({ columns, env, isTTY }: Terminal): Style => {
  const symbols = isTTY && env["TERM"] !== "dumb"
  // Some terminals say 0 when they do not know.
  const width = [columns, Number(env["COLUMNS"])].find((it) => Number.isInteger(it) && Number(it) > 0) ?? 110
  // Lines that end in the last column wrap in some terminals; very long ones are hard to read.
  return {
    width: Math.min(Math.max(width - 1, 40), 140),
    symbols,
    colour: symbols && (env["NO_COLOR"] ?? "") === ""
  }
}

/** The style for this process's own output. */
export const ownStyle = (): Style =>
  styleFor({ isTTY: process.stdout.isTTY === true, columns: process.stdout.columns, env: process.env })
