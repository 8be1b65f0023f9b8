import type { Signals } from "@curfew/shutdown"

/** Signals that a test sends. */
export const testSignals = (): Signals & {
  readonly send: (name?: string) => void
  readonly count: () => number
} => {
  const listeners = new Set<(signal: string) => void>()
  return {
    subscribe: (listener) => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    send: (name = "SIGTERM") => {
      for (const listener of [...listeners]) listener(name)
    },
    count: () => listeners.size
  }
}
