/** What the kinds of row share. */
import type { Options } from "../harness/options.ts"
import { type Kind, Pair } from "./pair.ts"

/** What is on in each row, at both ends. */
export const withAll = "100 B, 3 entries of metadata, deadline, 3 headers"

export const names: Readonly<Record<Kind, string>> = {
  direct: "direct grpc-js",
  bare: "a bare HTTP/2 stream",
  batches: "a bare HTTP/2 stream, in batches",
  stubs: "stubs and handlers of grpc-js",
  effect: "Effect client and scoped handlers"
}

export const ours = ["stubs", "effect"] as const

/** Beside rows that Node's HTTP/2 and the waking of two processes decide: how far these alone get. */
export const limitOf = (bare: string): string =>
  `a bare HTTP/2 stream that carries the bytes there and back: ${bare}`

/** Beside rows of many callers: how far two processes get that exchange such batches, and neither make nor read a frame. */
export const limitOfBatches = (bare: string): string =>
  `a bare HTTP/2 stream that carries the bytes there and back in a tunnel's batches: ${bare}`

/** What a user who knows them sets on a channel: wide windows, and no retry buffer, which makes backpressure fictional. */
export const tuned = { "grpc-node.flow_control_window": 4 << 20, "grpc.per_rpc_retry_buffer_size": 0 }

/** Runs with one of each, started one after the other, which are stopped whatever happens. */
export const withAllOf = async <K extends string, P extends AsyncDisposable, A>(
  keys: ReadonlyArray<K>,
  start: (key: K) => Promise<P>,
  run: (started: Readonly<Record<K, P>>) => Promise<A>
): Promise<A> => {
  await using stack = new AsyncDisposableStack()
  const started: Array<readonly [K, P]> = []
  for (const key of keys) started.push([key, stack.use(await start(key))])
  return await run(Object.fromEntries(started) as Record<K, P>)
}

/** Runs with a pair of each kind that has been called for a while. */
export const withPairs = <A>(
  { quick = false }: Options,
  kinds: ReadonlyArray<Kind>,
  run: (pairs: Readonly<Record<Kind, Pair>>) => Promise<A>
): Promise<A> =>
  withAllOf(
    kinds,
    async (kind) => {
      const pair = await Pair.start(kind)
      await pair.closed({ callers: 64, millis: quick ? 300 : 1_500 })
      return pair
    },
    run
  )
