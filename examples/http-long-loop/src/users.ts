/** Who may ask, and how much: each user has a credit of numbers to be tried. */
import { createHash, timingSafeEqual } from "node:crypto"

export interface User {
  readonly name: string
  credit: number
}

const hashOf = (text: string): Buffer => createHash("sha256").update(text).digest()

/** `ada=secret,bob=word`: names and tokens. */
export const readUsers = (
  text: string,
  credit: number
): ((authorization: string | undefined) => User | undefined) => {
  const users = text.split(",").map((entry) => {
    const [name = "", token = ""] = entry.split("=")
    return { user: { name, credit }, hash: hashOf(`Bearer ${token}`) }
  })
  return (authorization) => {
    const hash = hashOf(authorization ?? "")
    return users.find((entry) => timingSafeEqual(entry.hash, hash))?.user
  }
}
