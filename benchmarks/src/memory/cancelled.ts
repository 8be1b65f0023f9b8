/**
 * Whether cancelled calls leave anything behind: the heap of both ends, sampled with garbage collected, over a million
 * calls, of stubs and of Curfew's client in turn. It has a slope in bytes a call; nothing stays when its 95 % interval
 * contains zero.
 */
import { type Options, wanted } from "../harness/options.ts"
import { progress } from "../harness/progress.ts"
import type { Row } from "../harness/row.ts"
import { Pair } from "./pair.ts"
import { slopeOf } from "./slope.ts"

const samples = 80
/**
 * A heap also grows while code is compiled and tables take their size: by 22 B a call over the first twelve thousand, by
 * 2.6 over the first sixty thousand. Only what comes after this part of the calls counts; what leaks does so there too.
 */
const settling = 0.5

/**
 * The optimizing compilers go on for a million calls: of what the heap grew by between the calls 300,000 and 900,000, 52
 * and 42 kB, heap snapshots showed all as code and its tables, and not one object more of any class. What calls leave
 * shows without them: every function is compiled once, without optimization, when it is first called.
 */
const compiledOnce = [
  "--always-sparkplug",
  "--no-lazy-feedback-allocation",
  "--no-maglev",
  "--no-opt"
] as const

/** What a sample cannot tell: both may be off by as much as the smallest object has. */
const grain = 16

type Point = readonly [call: number, bytes: number]

const measure = async (
  calls: number,
  row: string
): Promise<{
  readonly client: ReadonlyArray<Point>
  readonly server: ReadonlyArray<Point>
  readonly begun: number
}> => {
  await using pair = await Pair.start("effect", compiledOnce)
  const client: Array<Point> = []
  const server: Array<Point> = []
  const step = Math.max(64, Math.ceil(calls / samples))
  for (let made = 0; made < calls; ) {
    const count = Math.min(step, calls - made)
    await pair.client.ask("cancelled", count)
    made += count
    await pair.settled()
    const held = await pair.memory()
    progress(`${row}: ${made} of ${calls}`)
    if (made <= settling * calls) continue
    client.push([made, held.client.heapUsed])
    server.push([made, held.server.heapUsed])
  }
  return { client, server, begun: await pair.settled() }
}

const said = (value: number): string => value.toFixed(4)

export const cancelledRows = async (options: Options): Promise<ReadonlyArray<Row>> => {
  const calls = Math.round(options.calls ?? 1_000_000)
  const row = `${calls.toLocaleString("en")} cancelled calls through a tunnel: heap`
  if (!wanted(options, row)) return []
  const { begun, client, server } = await measure(calls, row)
  if (begun === 0 || begun > calls)
    throw new Error(`A wrong result: ${begun} of ${calls} cancelled calls reached their handlers.`)
  return (
    [
      ["client", client],
      ["server", server]
    ] as const
  ).map(([end, points]) => {
    const { half, slope } = slopeOf(points)
    // At least 1 where zero lies within the interval.
    const ratio = (half + grain / calls) / (Math.abs(slope) + grain / calls)
    const held = ((points.at(-1)?.[1] ?? 0) / 2 ** 20).toFixed(1)
    return {
      row: `${row} of the ${end}`,
      ours: Math.abs(slope),
      peer: half,
      peerName: "half its 95 % interval",
      unit: "B/call",
      ratio,
      range: [ratio, ratio],
      target: 1,
      rounds: 1,
      note:
        `slope ${said(slope)} B/call, 95 % from ${said(slope - half)} to ${said(slope + half)}; code compiled once; ` +
        `${points.length} samples, the last of ${held} MiB; ${begun} calls reached their handlers`
    }
  })
}
