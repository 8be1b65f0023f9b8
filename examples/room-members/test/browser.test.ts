import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"
import { chromium, startBrowser, type Tab } from "./support/Browser.ts"
import { start } from "./support/running.ts"

const gone = "the client has gone (http1"

/** Waits until the page shows so many requests in flight, and as many that their clients left. */
const shows = (page: Tab, inFlight: number, left: number) =>
  page.evaluate(`new Promise((resolve) => {
    const look = () => {
      const shown = document.getElementById("count").textContent
      if (shown !== "${inFlight}" || document.querySelectorAll("tr.gone").length !== ${left}) return
      observer.disconnect()
      resolve([...document.querySelectorAll("tr.gone")].map((row) => row.innerText))
    }
    const observer = new MutationObserver(look)
    observer.observe(document.body, { childList: true, subtree: true, characterData: true })
    look()
  })`) as Promise<ReadonlyArray<string>>

if (chromium === undefined) {
  console.log("No Chromium here: its tests are skipped. Install one, or name it in the variable CHROMIUM.")
}

describe.skipIf(chromium === undefined)("a browser", { timeout: 120_000 }, () => {
  test("that closes tabs cancels their requests, and the page shows it", async () => {
    const { begun, endOf, noted, open, pauses, rooms, url } = await start()
    const { load, open: openTab } = await startBrowser()
    const page = await load(url)
    const members = await openTab(`${url}/rooms/lobby/members?tab=1`)
    const summary = await openTab(`${url}/rooms/lobby/summary?tab=2`)
    await openTab(`${url}/rooms/lobby/summary?tab=3`)
    await begun("/rooms/lobby/members", 1)
    await begun("/rooms/lobby/summary", 2)
    await pauses(2)
    expect(await shows(page, 3, 0)).toEqual([])

    await members.close()
    expect((await endOf("/rooms/lobby/members", 499)).why).toContain(gone)
    await noted(
      `members of lobby stopped after 500 members: ${(await endOf("/rooms/lobby/members", 499)).why}`
    )
    const [first] = await shows(page, 2, 1)
    expect(first).toMatch(/\/rooms\/lobby\/members\t499\t\d+\tthe client has gone/)

    // One of two that wait for the same: the other one has its answer.
    await summary.close()
    expect((await endOf("/rooms/lobby/summary", 499)).why).toContain(gone)
    await shows(page, 1, 2)
    expect(Effect.runSync(rooms.waiting("lobby"))).toBe(1)
    open()
    await shows(page, 0, 2)
    expect((await endOf("/rooms/lobby/summary", 200)).why).toBe(undefined)
  })

  test("that is killed leaves, with all its tabs", async () => {
    const { activity, begun, endOf, noted, pauses, url } = await start()
    const browser = await startBrowser()
    const page = await browser.load(url)
    await browser.open(`${url}/rooms/lobby/members?tab=1`)
    await browser.open(`${url}/rooms/lobby/summary?tab=2`)
    await begun("/rooms/lobby/members", 1)
    await begun("/rooms/lobby/summary", 1)
    await pauses(2)
    await shows(page, 2, 0)
    await browser.kill()
    await endOf("/rooms/lobby/members", 499)
    await endOf("/rooms/lobby/summary", 499)
    await noted("summary of lobby stopped after 500 members: nobody waits for it any more")
    // Its page was a reader of the activity.
    while (activity.readers > 0) await fetch(`${url}/rooms`).then((answer) => answer.text())
  })
})
