/** The search itself: pure, one byte string at a time. */
import { hash } from "node:crypto"
import type { Match } from "../grpc/hashFinder.ts"

/** How long a word may be: as long as the hash without its padding. */
const longestWord = 43

/**
 * The byte string with this number, counted from 0: the empty one, those of one byte, those of two, and so on. Each
 * byte string has one number.
 */
export const byteString = (index: number): Uint8Array => {
  const bytes: Array<number> = []
  for (let rest = index; rest > 0; rest = Math.floor((rest - 1) / 256)) bytes.unshift((rest - 1) % 256)
  return Uint8Array.from(bytes)
}

/** Its SHA-256 in base64. */
export const hashOf = (value: Uint8Array): string => hash("sha256", value, "base64")

/** How many letters differ between the word and the stretch of the hash that resembles it most. */
export const distanceBetween = (hashed: string, word: string): number => {
  const text = hashed.toLowerCase()
  const wanted = word.toLowerCase()
  let least = wanted.length
  for (let start = 0; start + wanted.length <= longestWord && least > 0; start++) {
    let differ = 0
    for (let i = 0; i < wanted.length && differ < least; i++) {
      if (text.charCodeAt(start + i) !== wanted.charCodeAt(i)) differ++
    }
    least = Math.min(least, differ)
  }
  return least
}

/** The byte string with this number, judged. */
export const judge = (index: number, word: string): Match => {
  const value = byteString(index)
  const hashed = hashOf(value)
  return { value, hash: hashed, distance: distanceBetween(hashed, word) }
}

/** Better matches first; among equals the shorter byte string, which comes first anyway. */
export const byDistance = (matches: ReadonlyArray<Match>): ReadonlyArray<Match> =>
  [...matches].sort((one, other) => one.distance - other.distance)

/** What is wrong with a word, if anything is. */
export const problemWith = (word: string): string | undefined => {
  if (word.length === 0) return "The word is empty."
  if (word.length > longestWord) return `The word is longer than a hash, which has ${longestWord} characters.`
  return /^[A-Za-z0-9+/]+$/.test(word) ? undefined : "The word has a character that base64 does not have."
}
