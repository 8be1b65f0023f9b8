/** Events as lines that a person reads. Pure: what the terminal can do comes in as options. */
import { type Lane, lanes, type Mark, type TimelineEvent } from "./TimelineEvent.ts"

export interface Style {
  /** Characters in a line. */
  readonly width: number
  /** Symbols and lines beyond ASCII. */
  readonly symbols: boolean
  readonly colour: boolean
}

const symbols: Readonly<Record<Mark, readonly [symbol: string, ascii: string]>> = {
  step: ["", ""],
  note: ["·", "."],
  start: ["●", ">"],
  data: ["↓", "<"],
  cancel: ["✕", "x"],
  cleanup: ["○", "o"],
  end: ["■", "="],
  fault: ["‼", "!"]
}

const symbolOf = (mark: Mark, { symbols: beyondAscii }: Style): string => symbols[mark][beyondAscii ? 0 : 1]

/** The marks that have a symbol, in the words of the legend. */
const marks: ReadonlyArray<readonly [mark: Mark, meaning: string]> = [
  ["start", "starts"],
  ["data", "data"],
  ["end", "ends"],
  ["cancel", "cancelled"],
  ["cleanup", "cleaned up"],
  ["note", "note"],
  ["fault", "fault"]
]

const codes = { bold: "1", dim: "2", red: "31", green: "32", yellow: "33", cyan: "36" } as const
type Colour = keyof typeof codes

const colours: Readonly<Partial<Record<Mark, Colour>>> = {
  note: "dim",
  cancel: "yellow",
  cleanup: "cyan",
  end: "green",
  fault: "red"
}

/** Puts a text in a colour, if there are colours. */
export const paint = (text: string, colour: Colour | undefined, style: Style): string =>
  style.colour && colour !== undefined && text !== "" ? `\u001b[${codes[colour]}m${text}\u001b[0m` : text

/** Below this width the lanes are left out; the name of the process says it as well. */
const narrow = 72
const longestLane = Math.max(...lanes.map((lane) => lane.length))

/** Breaks a text at spaces; a word that is longer than the line is broken anywhere. */
export const wrap = (text: string, width: number): ReadonlyArray<string> => {
  const room = Math.max(width, 8)
  const lines: Array<string> = []
  let line = ""
  for (let word of text.split(" ")) {
    while (word.length > room) {
      if (line !== "") lines.push(line)
      lines.push(word.slice(0, room))
      word = word.slice(room)
      line = ""
    }
    const longer = line === "" ? word : `${line} ${word}`
    if (longer.length > room) {
      lines.push(line)
      line = word
    } else line = longer
  }
  return line === "" && lines.length > 0 ? lines : [...lines, line]
}

/** A duration for a person: two digits that matter, in milliseconds. */
export const millis = (took: number): string => `${took < 10 ? took.toFixed(1) : Math.round(took)} ms`

/** The lanes at one moment: a symbol where it happened, a line everywhere else. */
const gutter = (at: Lane | undefined, mark: Mark, style: Style): string => {
  if (style.width < narrow) return ""
  const line = paint(style.symbols ? "│" : "|", "dim", style)
  const symbol = paint(symbolOf(mark, style), colours[mark], style)
  return `${lanes.map((lane) => (lane === at ? symbol : line)).join(" ")}  `
}

const gutterWidth = (style: Style): number => (style.width < narrow ? 0 : lanes.length * 2 + 1)

/** One event as one line, or more when the text does not fit. `zero` is the time that is shown as 0. */
export const eventLines = (event: TimelineEvent, zero: number, style: Style): ReadonlyArray<string> => {
  const time = (event.at - zero).toFixed(1).padStart(8)
  const call = (event.call ?? "").slice(0, 4).padEnd(4)
  const text = event.took === undefined ? event.text : `${event.text} (${millis(event.took)})`
  const before = time.length + 2 + gutterWidth(style) + longestLane + 2 + call.length + 1
  const [first = "", ...more] = wrap(text, style.width - before)
  const tint = (line: string) => paint(line, colours[event.mark], style)
  return [
    `${paint(time, "dim", style)}  ${gutter(event.lane, event.mark, style)}${event.lane.padEnd(longestLane)}  ${call} ${tint(first)}`,
    ...more.map(
      (line) =>
        `${" ".repeat(time.length + 2)}${gutter(undefined, "note", style)}${" ".repeat(longestLane + 2 + call.length + 1)}${tint(line)}`
    )
  ]
}

/** The names over the lanes, one to a line, as there is no room for them side by side. */
const heading = (style: Style): ReadonlyArray<string> => {
  if (style.width < narrow) return [`${"ms".padStart(8)}`]
  const line = style.symbols ? "│" : "|"
  return lanes.map((lane, index) => {
    const before = index === 0 ? "ms".padStart(8) : " ".repeat(8)
    return paint(`${before}  ${`${line} `.repeat(index)}${lane}`, "dim", style)
  })
}

/** What the symbols mean. Without lanes there are none. */
const legend = (style: Style): ReadonlyArray<string> => {
  if (style.width < narrow) return []
  const line = marks.map(([mark, meaning]) => `${symbolOf(mark, style)} ${meaning}`).join("   ")
  return ["", ...wrap(line, style.width).map((it) => paint(it, "dim", style))]
}

/** All events in the order of time, with a headline where a step of the scenario begins. */
export const timeline = (events: ReadonlyArray<TimelineEvent>, style: Style): ReadonlyArray<string> => {
  const inOrder = events.toSorted((one, other) => one.at - other.at)
  const zero = inOrder[0]?.at ?? 0
  const lines = [...heading(style), ...legend(style)]
  for (const event of inOrder) {
    if (event.mark !== "step") lines.push(...eventLines(event, zero, style))
    else {
      const title = wrap(`${event.call ?? ""}  ${event.text}`, style.width - 4)
      lines.push("", ...title.map((line, index) => paint(index === 0 ? line : `    ${line}`, "bold", style)))
    }
  }
  return lines
}
