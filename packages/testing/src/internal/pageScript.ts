/**
 * What draws the timeline in the browser.
 *
 * Invariants
 * 1. `drawPage` is written into the page as its own source text: it uses nothing from outside of itself but the
 *    browser's globals.
 * 2. Text of the program under test enters the page as text nodes only, never as markup.
 */
import type { PageData } from "./html.ts"

export const drawPage = (data: PageData): void => {
  const colours = ["#4f7cff", "#12a594", "#e5822b", "#a855f7", "#d6409f", "#5b8c00", "#0091c8", "#b45309"]
  const rowHeight = 26
  const laneWidth = 22
  const near = 12

  const element = (tag: string, className = "", text = ""): HTMLElement => {
    const made = document.createElement(tag)
    if (className !== "") made.className = className
    if (text !== "") made.textContent = text
    return made
  }
  const draw = (tag: string, attributes: Record<string, string | number>, text = ""): SVGElement => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag)
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value))
    if (text !== "") made.textContent = text
    return made
  }
  const main = document.querySelector("main") as HTMLElement

  type Card = PageData["reports"][number]["cards"][number]
  type Event = NonNullable<Card["timeline"]>["events"][number]
  type Row = { readonly event?: Event; readonly hidden?: ReadonlyArray<number>; readonly end?: string }

  const rowsOf = (events: ReadonlyArray<Event>, open: ReadonlySet<number>): ReadonlyArray<Row> => {
    const lastSource = (at: number): string | undefined => {
      for (let i = at - 1; i >= 0; i--) if (events[i]?.fiber === events[at]?.fiber) return events[i]?.source
      return undefined
    }
    const keep = events.map((event, i) => {
      if (event.kind !== "operation" || open.has(i)) return true
      // The first operation at each line of the program tells the story; the others are steps between.
      if (event.source !== undefined && event.source !== lastSource(i) && event.code !== undefined)
        return true
      for (let j = Math.max(0, i - near); j <= Math.min(events.length - 1, i + near); j++) {
        if (events[j]?.kind === "cancel") return true
      }
      return false
    })
    const rows: Array<Row> = []
    for (let i = 0; i < events.length; i++) {
      if (keep[i]) {
        rows.push({ event: events[i] as Event })
        continue
      }
      const hidden: Array<number> = []
      while (i < events.length && !keep[i]) hidden.push(i++)
      i--
      rows.push({ hidden })
    }
    return rows
  }

  const timelineOf = (card: Card, open: Set<number>): HTMLElement => {
    const timeline = card.timeline as NonNullable<Card["timeline"]>
    const events = timeline.events
    const rows: ReadonlyArray<Row> = [...rowsOf(events, open), { end: timeline.exit }]
    const lanes = timeline.fibers.map(({ index }) => index)
    if (events.some(({ fiber }) => fiber === 0)) lanes.unshift(0)
    const probes = [
      ...new Set(
        events.flatMap(({ probe }) => (probe === undefined || probe.what === "note" ? [] : [probe.name]))
      )
    ]
    const left = 14
    const xOf = (fiber: number): number => left + lanes.indexOf(fiber) * laneWidth
    const resourcesAt = left + lanes.length * laneWidth + 8
    const width = resourcesAt + probes.length * 16 + 10
    const colourOf = (fiber: number): string => colours[lanes.indexOf(fiber) % colours.length] as string
    const box = element("div", "timeline")
    const head = element("div", "row head")
    head.append(
      element("span", "step", "step"),
      element("span", "gap"),
      element("span", "what", "operation"),
      element("span", "code", "code of the program"),
      element("span", "source", "place")
    )
    ;(head.children[1] as HTMLElement).style.width = `${width}px`
    const names = draw("svg", { width, height: 64, class: "names" })
    for (const lane of lanes) {
      names.append(
        draw(
          "text",
          { x: xOf(lane), y: 58, fill: colourOf(lane), "text-anchor": "middle" },
          lane === 0 ? "·" : `#${lane}`
        )
      )
    }
    head.children[1]?.append(names)
    const body = element("div", "rows")
    const svg = draw("svg", { class: "lanes", width, height: rows.length * rowHeight })
    const middle = (row: number): number => row * rowHeight + rowHeight / 2
    const rowOf = (test: (event: Event) => boolean): number =>
      rows.findIndex(({ event }) => event !== undefined && test(event))

    for (const [index, fiber] of timeline.fibers.entries()) {
      const born = Math.max(
        0,
        rowOf((event) => event.kind === "fork" && event.what === `forks #${fiber.index}`)
      )
      const ended = rowOf((event) => event.kind === "end" && event.fiber === fiber.index)
      const last = ended < 0 ? rows.length - 1 : ended
      const cancelled = rowOf((event) => event.kind === "cancel" && event.fiber === fiber.index)
      const x = xOf(fiber.index)
      const line = (from: number, to: number, more: Record<string, string | number>) =>
        svg.append(
          draw("line", {
            x1: x,
            x2: x,
            y1: middle(from),
            y2: middle(to),
            stroke: colours[index % colours.length] as string,
            "stroke-width": 2,
            ...more,
            ...(lanes[0] === 0 ? { stroke: colourOf(fiber.index) } : {})
          })
        )
      if (cancelled >= 0 && cancelled < last) {
        line(born, cancelled, {})
        line(cancelled, last, { "stroke-dasharray": "3 3" })
      } else line(born, last, {})
      if (fiber.parent !== undefined && lanes.includes(fiber.parent)) {
        svg.append(
          draw("line", {
            x1: xOf(fiber.parent),
            x2: x,
            y1: middle(born),
            y2: middle(born),
            stroke: colourOf(fiber.index),
            "stroke-width": 2
          })
        )
      }
      if (ended < 0) {
        svg.append(draw("text", { x, y: middle(last) + 5, class: "lost", "text-anchor": "middle" }, "▼"))
      }
    }

    for (const [index, name] of probes.entries()) {
      const x = resourcesAt + index * 16
      const starts: Array<number> = []
      const bar = (from: number, to: number, lost: boolean) =>
        svg.append(
          draw("rect", {
            x: x - 4,
            y: middle(from) - 7,
            width: 8,
            height: Math.max(14, middle(to) - middle(from) + 14),
            rx: 4,
            class: lost ? "held lost" : "held"
          })
        )
      for (const [row, { event }] of rows.entries()) {
        if (event?.probe?.name !== name) continue
        if (event.probe.what === "acquired" || event.probe.what === "began") starts.push(row)
        if (event.probe.what === "released" || event.probe.what === "ended")
          bar(starts.pop() ?? row, row, false)
      }
      for (const start of starts) bar(start, rows.length - 1, true)
      names.append(
        draw(
          "text",
          { x: x - 2, y: 56, class: "probe-name", transform: `rotate(-55 ${x} 56)` },
          name.slice(0, 14)
        )
      )
    }

    for (const [row, { end, event, hidden }] of rows.entries()) {
      const line = element("div", `row ${event?.kind ?? (end === undefined ? "hidden" : "exit")}`)
      const gap = element("span", "gap")
      gap.style.width = `${width}px`
      if (hidden !== undefined) {
        const button = element("button", "", `… ${hidden.length} operation${hidden.length === 1 ? "" : "s"}`)
        button.addEventListener("click", () => {
          for (const i of hidden) open.add(i)
          box.replaceWith(timelineOf(card, open))
        })
        line.append(element("span", "step"), gap, button)
      } else if (end !== undefined) {
        line.append(element("span", "step"), gap, element("span", "what", `the run ended: ${end}`))
      } else if (event !== undefined) {
        const x = xOf(event.fiber)
        const colour = colourOf(event.fiber)
        if (event.kind === "cancel") {
          svg.append(draw("circle", { cx: x, cy: middle(row), r: 8, class: "cancel-mark" }))
          svg.append(
            draw("text", { x, y: middle(row) + 4, class: "cancel-cross", "text-anchor": "middle" }, "✕")
          )
        } else if (event.kind === "operation" || event.kind === "end") {
          svg.append(
            draw("circle", {
              cx: x,
              cy: middle(row),
              r: event.kind === "end" ? 5 : 4,
              fill: event.masked ? "var(--card)" : colour,
              stroke: colour,
              "stroke-width": 2
            })
          )
        }
        const text =
          event.kind === "cancel"
            ? `cancel of #${event.fiber}`
            : event.kind === "end"
              ? `#${event.fiber} ends: ${event.what}`
              : event.what
        const what = element("span", "what", text)
        if (event.masked) what.append(element("i", "masked", "masked"))
        line.append(
          element("span", "step", event.kind === "operation" ? String(event.step) : ""),
          gap,
          what,
          element("span", "code", event.code ?? event.probe?.detail ?? ""),
          element("span", "source", event.source ?? "")
        )
      }
      body.append(line)
    }
    body.append(svg)
    box.append(head, body)
    for (const broken of timeline.broken) box.append(element("div", "verdict", `✕ ${broken}`))
    return box
  }

  for (const report of data.reports) {
    const section = element("section")
    const title = element("h2", "", report.name)
    title.append(
      element("span", report.ok ? "badge good" : "badge bad", report.ok ? "nothing broken" : report.verdict)
    )
    section.append(title, element("p", "summary", report.summary))
    const strips = element("div", "strips")
    for (const strip of report.strips) {
      const row = element("div", "strip")
      row.append(element("label", "", strip.label))
      const cells = element("div", "cells")
      for (const [index, kinds] of strip.cells.entries()) {
        const cell = element("b", kinds === "" ? "" : "broken")
        cell.title = `step ${index + 1}${kinds === "" ? "" : `: ${kinds}`}`
        cells.append(cell)
      }
      row.append(cells)
      strips.append(row)
    }
    section.append(strips)
    for (const card of report.cards) {
      const box = element("article")
      const heading = element("h3", "", card.kind)
      if (card.probe !== undefined) heading.append(element("em", "", card.probe))
      box.append(heading, element("p", "message", card.message), element("p", "where", card.where))
      if (card.position.length > 0) box.append(element("pre", "", card.position.join("\n")))
      if (card.timeline === undefined) box.append(element("p", "where", card.without))
      else box.append(timelineOf(card, new Set()))
      section.append(box)
    }
    main.append(section)
  }
}
