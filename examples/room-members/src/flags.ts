/** Flags, and a sentence for every mistake. */
import { type ParseArgsOptionsConfig, parseArgs } from "node:util"

const refuse = (problem: string): never => {
  console.error(problem)
  process.exit(2)
}

export const readFlags = <const O extends ParseArgsOptionsConfig>(options: O) => {
  try {
    return parseArgs({ options }).values
  } catch (error) {
    const known = Object.keys(options).map((name) => `--${name}`)
    return refuse(`${(error as Error).message}. The flags are ${known.join(", ")}.`)
  }
}

export const wholeNumber = (name: string, text: string, most: number): number => {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
  return value <= most ? value : refuse(`--${name} takes a whole number from 0 to ${most}, not "${text}".`)
}
