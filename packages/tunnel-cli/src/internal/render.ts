/**
 * A snapshot as text.
 *
 * **Invariants**
 * 1. What a peer chose is printed without control characters: it cannot move the cursor of who looks.
 * 2. No line is wider than the terminal.
 */
import type { Snapshot } from "./snapshot.ts"

export interface Style {
  readonly colour: boolean
  /** Columns; 0 when nobody counts. */
  readonly width: () => number
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what has to be kept out of a terminal
const control = /[\u0000-\u001f\u007f-\u009f]/g
const clean = (text: string): string => text.replace(control, "?")

const ago = (ms: number): string => {
  const seconds = ms / 1_000
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 120) return `${Math.round(seconds)} s`
  return seconds < 7_200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3_600).toFixed(1)} h`
}

const units = ["B", "KiB", "MiB", "GiB", "TiB"]

const amount = (bytes: number): string => {
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

/** Columns as wide as their widest cell; numbers to the right. */
const table = (
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>
): ReadonlyArray<string> => {
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length))
  )
  const line = (cells: ReadonlyArray<string>): string =>
    cells
      .map((cell, column) => {
        const width = widths[column] as number
        return /^[\d.]/.test(cell) && column > 0 ? cell.padStart(width) : cell.padEnd(width)
      })
      .join("  ")
      .trimEnd()
  return [line(head), ...rows.map(line)].map((text) => `  ${text}`)
}

const counts = (record: Readonly<Record<string, number>>): string =>
  Object.entries(record)
    .map(([name, count]) => `${name} ${count}`)
    .join(", ")

/** Stands before a heading; `clean` keeps it out of everything else. */
const heading = "\u0001"

export const render = (now: Snapshot, { colour, width }: Style): string => {
  const { bytes, calls, keys, tunnels } = now
  // Made bold when it has been cut: what colours a line takes no room in it.
  const bold = (text: string): string => `${heading}${text}`
  const addresses = Object.entries(now.addresses).map(([name, at]) => `${name} ${at}`)
  const lines: Array<string> = [
    bold(
      `${now.role}  ${now.stage}, ${now.ready ? "ready" : "not ready"}, up ${ago(now.upForMs)}, pid ${now.pid}`
    ),
    `  ${addresses.join("  ")}`,
    "",
    bold(
      `calls  ${calls.inFlight} in flight, ${calls.completed} completed, ${calls.failed} failed, ${calls.cancelled} cancelled, ${calls.refused} refused`
    ),
    `  payload  ${amount(bytes.requests)} of requests, ${amount(bytes.responses)} of responses`,
    ...(calls.cancelled > 0 ? [`  cancelled by  ${counts(calls.cancelledBy)}`] : []),
    ...(calls.started > calls.inFlight ? [`  status codes  ${counts(calls.codes)}`] : []),
    ...table(
      ["method", "key", "for", "requests", "responses", "caller"],
      calls.longest
        .slice(0, 10)
        .map(({ key, method, peer, requestBytes, responseBytes, runningForMs }) => [
          clean(method),
          clean(key),
          ago(runningForMs),
          amount(requestBytes),
          amount(responseBytes),
          clean(peer)
        ])
    ).slice(calls.longest.length === 0 ? 1 : 0),
    "",
    bold(`tunnels  ${tunnels.length} open`),
    ...table(
      [
        "key",
        "kind",
        "peer",
        "for",
        "in flight",
        "opened",
        "cancelled",
        "sent",
        "received",
        "held",
        "no window"
      ],
      tunnels.map((one) => [
        one.key === "" ? "-" : clean(one.key),
        one.kind,
        clean(one.peer),
        ago(one.openForMs),
        `${one.streams}`,
        `${one.opened}`,
        `${one.cancelled}`,
        ...[one.sentBytes, one.receivedBytes, one.heldBytes].map((bytes) =>
          bytes === null ? "-" : amount(bytes)
        ),
        `${one.stalled ?? "-"}`
      ])
    ).slice(tunnels.length === 0 ? 1 : 0),
    ...(keys.length === 0
      ? []
      : [
          "",
          bold("keys"),
          ...table(
            ["key", "tunnels", "in flight"],
            keys.map((one) => [one.key, `${one.tunnels}`, `${one.inFlight}`])
          )
        ]),
    "",
    bold(now.stage === "running" ? "a shutdown would wait for" : "the shutdown waits for"),
    ...(now.waitingFor.length === 0 ? ["  nothing"] : now.waitingFor.map((name) => `  ${clean(name)}`)),
    "",
    bold("live tree"),
    ...now.treeText.split("\n").map((line) => `  ${clean(line)}`)
  ]
  const columns = width() || Number.POSITIVE_INFINITY
  return lines
    .map((line) => {
      if (!line.startsWith(heading)) return line.slice(0, columns)
      const text = line.slice(heading.length).slice(0, columns)
      return colour ? `\x1b[1m${text}\x1b[22m` : text
    })
    .join("\n")
}
