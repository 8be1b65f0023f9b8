/** Writes what a pure machine does as text, so that a test can hold the whole of it as a table. */

interface Tagged {
  readonly _tag: string
}

/** Every state with every event: one line each, `state + event -> state: actions`. */
export const tabulate = <S extends Tagged, E extends Tagged, A extends Tagged>(
  states: Readonly<Record<string, S>>,
  events: Readonly<Record<string, E>>,
  step: (state: S, event: E) => readonly [S, ReadonlyArray<A>],
  nameOf: (state: S) => string,
  actionOf: (action: A) => string
): ReadonlyArray<string> =>
  Object.entries(states).flatMap(([stateName, state]) =>
    Object.entries(events).map(([eventName, event]) => {
      const [next, actions] = step(state, event)
      const same = next === state ? "=" : nameOf(next)
      return `${stateName} + ${eventName} -> ${same}${actions.length === 0 ? "" : `: ${actions.map(actionOf).join(", ")}`}`
    })
  )

/** The lines of a table in a test, without its indentation and blank lines. */
export const lines = (table: string): ReadonlyArray<string> =>
  table
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "")
