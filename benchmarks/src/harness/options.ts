import type { Row } from "./row.ts"

/** What a part is told by the command line. What is not set is the part's own choice. */
export interface Options {
  /** `--rounds N`: how often ours and its peers take turns. */
  readonly rounds?: number
  /** `--only text`: the rows whose name contains this, whatever the case. */
  readonly only?: string
  /** `--calls N`: how many calls a measurement makes, where a part counts calls. */
  readonly calls?: number
  /** `--seconds N`: how long a measurement lasts, where a part measures for a time. */
  readonly seconds?: number
  /** `--quick`: what is not set is small: to see that all works, not to believe the figures. */
  readonly quick?: boolean
}

/** A part gives its rows, or fails when a result was wrong. */
export type Run = (options: Options) => Promise<ReadonlyArray<Row>>

/** Whether this row was asked for. */
export const wanted = ({ only }: Options, row: string): boolean =>
  only === undefined || row.toLowerCase().includes(only.toLowerCase())
