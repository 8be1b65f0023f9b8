/** What the scenario's calls come to, if everything is as it should be. `--once` compares what it measured with this. */
export const plan = {
  /** Calls that the client makes. */
  calls: 8,
  /** Those that are answered. */
  answered: 4,
  /** Handlers that were stopped before their answer, and by what. */
  cancelled: 4,
  cancelledBy: { client: 2, deadline: 1, limit: 1 },
  /** Of these, the ones whose response was being written. */
  cancelledInAWrite: 1
} as const

/** The names under which the backend counts what stopped a handler. */
export const tallies = {
  client: "cancelled by the client",
  deadline: "cancelled by its deadline",
  limit: "cancelled by the server's limit"
} as const
