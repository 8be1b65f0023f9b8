/** Where in the program's source a piece of clean-up was called. */
import { afterEach, describe, expect, test, vi } from "vitest"
import { takePosition } from "../src/internal/source.ts"

const limit = Error.stackTraceLimit
const { captureStackTrace, prepareStackTrace } = Error

const here = () => takePosition(here)

describe("a source position", () => {
  afterEach(() => {
    vi.restoreAllMocks()
    Error.captureStackTrace = captureStackTrace
    Error.prepareStackTrace = prepareStackTrace
    Error.stackTraceLimit = limit
  })

  test("names the line of the caller, and leaves the limit as it was", () => {
    Error.stackTraceLimit = 7
    expect(here()()).toContain("source.test.ts")
    expect(Error.stackTraceLimit).toBe(7)
    Reflect.deleteProperty(Error, "stackTraceLimit")
    here()
    expect(Object.hasOwn(Error, "stackTraceLimit")).toBe(false)
  })

  test("of those that are asked for in one millisecond only the first are taken", () => {
    const now = vi.spyOn(performance, "now")
    now.mockReturnValue(1e9)
    const taken = () => Array.from({ length: 1_000 }, here).filter((read) => read() !== undefined).length
    expect(taken()).toBe(16)
    now.mockReturnValue(1e9 + 1)
    expect(here()()).toContain("source.test.ts")
  })

  test("an engine that throws leaves the limit as it was, and gives no position", () => {
    Error.stackTraceLimit = 7
    Error.captureStackTrace = () => {
      throw new Error("no stack")
    }
    expect(here()()).toBeUndefined()
    expect(Error.stackTraceLimit).toBe(7)
  })

  test("a program that prepares its stacks itself gets no say in whether reading one throws", () => {
    Error.prepareStackTrace = () => {
      throw new Error("no text")
    }
    expect(here()()).toBeUndefined()
    Error.prepareStackTrace = (_, sites) => sites
    expect(here()()).toBeUndefined()
  })
})
