/**
 * How long processes were ready to run and the machine had no processor for them. Linux tells; elsewhere it is nothing,
 * and a busy machine's silence counts like any other.
 */
import { readdirSync, readFileSync } from "node:fs"

const read = (file: string): string => {
  try {
    return readFileSync(file, "utf8")
  } catch {
    // The process has ended, or the system keeps no such file.
    return ""
  }
}

const entries = (dir: string): ReadonlyArray<string> => {
  try {
    return readdirSync(dir)
  } catch {
    return []
  }
}

/** Those of the process group, its leader apart. */
const members = (group: number): ReadonlyArray<number> =>
  entries("/proc").flatMap((entry) => {
    const pid = Number(entry)
    if (!Number.isInteger(pid) || pid === group) return []
    // The name stands in parentheses and may hold anything; after it come the state, the parent and the group.
    const stat = read(`/proc/${pid}/stat`)
    return Number(stat.slice(stat.lastIndexOf(")")).split(" ")[3]) === group ? [pid] : []
  })

/** The second number is what the main thread has waited for a processor, in nanoseconds. */
const waitedBy = (pid: number): number => Number(read(`/proc/${pid}/schedstat`).split(" ")[1] ?? 0) / 1e6

/** How often it is looked who is in the group, in milliseconds: that takes longer than asking those who are known. */
const every = 1_000

/**
 * Each call tells for how many milliseconds since the last one the member of the process group that waited longest has
 * waited. It is never more than the time that has gone by: a hang that keeps a processor busy is noticed all the same.
 */
export const queueing = (group: number): (() => number) => {
  let known = members(group)
  let counted = performance.now()
  let asked = counted
  let before = new Map<number, number>()
  const look = (): number => {
    const at = performance.now()
    if (at - counted > every) {
      known = members(group)
      counted = at
    }
    const now = new Map(known.map((pid) => [pid, waitedBy(pid)]))
    const most = Math.max(0, ...[...now].map(([pid, waited]) => waited - (before.get(pid) ?? waited)))
    const gone = at - asked
    before = now
    asked = at
    return Math.min(most, gone)
  }
  look()
  return look
}
