/** The search itself: plain functions that know nothing of calls, threads and cancels. */
import { hash } from "node:crypto"
import type { Candidate, Query } from "./service.ts"

/** Hashes between two looks at whether to stop. They take about half a millisecond. */
export const batchSize = 128

/** As many letters as a SHA-256 in base64 has, without the padding. */
const hashLength = 43

/** Secrets have numbers: try `count` of them, beginning with number `from`. */
export interface Job {
  readonly query: Query
  readonly from: number
  readonly count: number
}

export interface Found {
  readonly candidates: ReadonlyArray<Candidate>
  readonly tried: number
  /** One of the candidates is ideal; it is the last one. */
  readonly ideal: boolean
}

export const tryAll = ({ count, from, query }: Job): Found => {
  const candidates: Array<Candidate> = []
  for (let tried = 1; tried <= count; tried++) {
    const candidate = judge((from + tried - 1).toString(36), query.desiredName)
    if (candidate.distance <= query.interestingDistance) candidates.push(candidate)
    if (candidate.distance <= query.idealDistance) return { candidates, tried, ideal: true }
  }
  return { candidates, tried: count, ideal: false }
}

const judge = (secret: string, name: string): Candidate => {
  const hashed = hash("sha256", secret, "base64").slice(0, hashLength)
  return { secret, hash: hashed, distance: distanceBetween(hashed.toLowerCase(), name.toLowerCase()) }
}

/** How many letters differ between the name and the stretch of the hash that resembles it most. */
export const distanceBetween = (hashed: string, name: string): number => {
  let least = name.length
  for (let start = 0; start + name.length <= hashed.length; start++) {
    let differ = 0
    for (let i = 0; i < name.length && differ < least; i++) {
      if (hashed.charCodeAt(start + i) !== name.charCodeAt(i)) differ++
    }
    least = Math.min(least, differ)
  }
  return least
}

/** What is wrong with a query, if anything is, as a sentence. */
export const problemWith = ({
  desiredName,
  idealDistance,
  interestingDistance
}: Query): string | undefined => {
  if (!/^[A-Za-z0-9+/]{1,43}$/.test(desiredName)) {
    return "Give a desired name of 1 to 43 characters that base64 has: letters, digits, + and /."
  }
  return idealDistance <= interestingDistance
    ? undefined
    : "Give an interesting distance that is at least the ideal distance."
}
