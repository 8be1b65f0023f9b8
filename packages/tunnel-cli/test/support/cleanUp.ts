/** What a test file started, ended when all of its tests have run: processes start slowly, so tests share them. */
import { afterAll } from "vitest"

const ends: Array<() => void> = []

export const atEnd = (end: () => void): void => {
  ends.push(end)
}

afterAll(() => {
  for (const end of ends.splice(0).reverse()) end()
})
