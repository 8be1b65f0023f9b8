/** Where in the program's source a piece of clean-up was called. */
import { afterEach, describe, expect, test } from "vitest"
import { takePosition } from "../src/internal/source.ts"

const limit = Error.stackTraceLimit
const { captureStackTrace, prepareStackTrace } = Error

const here = () => takePosition(here)

describe("a source position", () => {
  afterEach(() => {
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
