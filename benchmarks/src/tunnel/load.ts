/**
 * How calls are made to arrive.
 *
 * Invariants:
 * 1. A closed loop has so many callers, each with one call at a time. An open loop has a schedule that does not wait for
 *    answers, and the time of a call begins when it was due, not when the generator came round to it.
 * 2. What an open loop could not even issue, because too many calls were outstanding, counts as not completed. How long
 *    it would have taken is not known: at least as long as the slowest that was seen, and it is taken to have been all
 *    that anybody would have waited. A comparison takes the one for the peer and the other for ours.
 */
import { cpuMicros } from "../harness/child.ts"
import type { Driver } from "./driver.ts"

export interface Closed {
  readonly callers: number
  readonly millis: number
  readonly wrapped?: boolean
}

export interface ClosedResult {
  readonly calls: number
  readonly callsPerSecond: number
  readonly cpuMicros: number
}

let numbers = 0

export const nextNumber = (): number => ++numbers

export const closedLoop = async (
  driver: Driver,
  { callers, millis, wrapped = false }: Closed
): Promise<ClosedResult> => {
  const [first, cpu, begin] = [numbers, cpuMicros(), performance.now()]
  const end = begin + millis
  const until = (): number | undefined => (performance.now() < end ? nextNumber() : undefined)
  await Promise.all(Array.from({ length: callers }, () => driver.loop(wrapped, until)))
  const calls = numbers - first
  return {
    calls,
    callsPerSecond: (calls * 1_000) / (performance.now() - begin),
    cpuMicros: cpuMicros() - cpu
  }
}

export interface Open {
  readonly rate: number
  readonly millis: number
  /** Calls that may be outstanding; a call that is due beyond that is not made. */
  readonly cap: number
  /** How long after the last arrival answers may still come. */
  readonly patience: number
  /**
   * Look at the clock without rest, where no processor time is measured: timers are late by up to a millisecond, which
   * would hide what is to be seen.
   */
  readonly spin?: boolean
}

export interface OpenResult {
  readonly offered: number
  /** Answered before the last arrival was due, and a tenth of a second. */
  readonly inTime: number
  readonly completed: number
  readonly dropped: number
  readonly p50: number
  readonly p99: number
  /** The same, where a call that was not made counts with all the time that there was. */
  readonly p99AtMost: number
  readonly cpuMicros: number
}

/** What an open loop tells the time by. */
export interface Time {
  readonly now: () => number
  /** Calls back after so many milliseconds; gives what takes that back. */
  readonly after: (millis: number, then: () => void) => () => void
}

const processTime: Time = {
  now: () => performance.now(),
  after: (millis, then) => {
    const timer = setTimeout(then, millis)
    return () => clearTimeout(timer)
  }
}

/** The value below which this share of all lies. */
export const percentile = (values: ReadonlyArray<number> | Float64Array, share: number): number => {
  const sorted = Float64Array.from(values).sort()
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number
}

const grace = 100

export const openLoop = (
  driver: Driver,
  { cap, millis, patience, rate, spin = false }: Open,
  time: Time = processTime
): Promise<OpenResult> =>
  new Promise((resolve, reject) => {
    const offered = Math.round((rate * millis) / 1_000)
    const times = new Float64Array(offered)
    const [cpu, begin, gap] = [cpuMicros(), time.now(), 1_000 / rate]
    let [due, outstanding, completed, inTime, dropped, over] = [0, 0, 0, 0, 0, false]

    const finish = (): void => {
      if (over) return
      over = true
      impatient()
      const now = time.now()
      // What is outstanding has taken this long already.
      for (let index = 0; index < offered; index++)
        if (times[index] === 0) times[index] = now - (begin + index * gap)
      const slowest = times.reduce((max, time) => Math.max(max, time), 0)
      const where = (notMade: number) => times.map((time) => (time < 0 ? notMade : time))
      resolve({
        offered,
        inTime,
        completed,
        dropped,
        p50: percentile(where(slowest), 0.5),
        p99: percentile(where(slowest), 0.99),
        p99AtMost: percentile(where(millis + patience), 0.99),
        cpuMicros: cpuMicros() - cpu
      })
    }

    const issue = (index: number): void => {
      const at = begin + index * gap
      if (outstanding >= cap) {
        dropped++
        times[index] = -1
        return
      }
      outstanding++
      driver.issue(nextNumber(), (error) => {
        outstanding--
        if (over) return
        if (error !== undefined) {
          over = true
          return reject(error)
        }
        const now = time.now()
        times[index] = now - at
        completed++
        if (now <= begin + millis + grace) inTime++
        if (due === offered && outstanding === 0) finish()
      })
    }

    const tick = (): void => {
      if (over) return
      const now = time.now()
      while (due < offered && begin + due * gap <= now) issue(due++)
      if (due === offered) {
        if (outstanding === 0) finish()
        return
      }
      if (spin) setImmediate(tick)
      else time.after(Math.max(0, begin + due * gap - time.now()), tick)
    }
    const impatient = time.after(millis + patience, finish)
    tick()
  })
