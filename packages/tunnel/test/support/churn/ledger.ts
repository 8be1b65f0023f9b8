/**
 * Calls and what became of them, counted twice over: by the callers, from the status that each call gets, and by the
 * tunnels' own events. What started has to have ended, once, and in one way.
 */
import { status as Code, type Metadata, type StatusObject } from "@grpc/grpc-js"
import type { TunnelEvent } from "../../../src/index.ts"
import type { Draw } from "../draw.ts"
import type { EchoClient } from "../echo.ts"

export interface Ledger {
  started: number
  completed: number
  cancelled: number
  failed: number
  /** Streams that a tunnel opened and closed, of either side. */
  opened: number
  closed: number
  tunnelsOpened: number
  tunnelsClosed: number
}

export const makeLedger = (): Ledger => ({
  started: 0,
  completed: 0,
  cancelled: 0,
  failed: 0,
  opened: 0,
  closed: 0,
  tunnelsOpened: 0,
  tunnelsClosed: 0
})

export const observe =
  (ledger: Ledger) =>
  ({ _tag }: TunnelEvent): void => {
    if (_tag === "StreamOpened") ledger.opened++
    else if (_tag === "StreamClosed") ledger.closed++
    else if (_tag === "TunnelOpened") ledger.tunnelsOpened++
    else if (_tag === "TunnelClosed") ledger.tunnelsClosed++
  }

/** What does not add up, as sentences. */
export const discrepancies = (who: string, ledger: Ledger): ReadonlyArray<string> => {
  const { cancelled, closed, completed, failed, opened, started, tunnelsClosed, tunnelsOpened } = ledger
  const found: Array<string> = []
  if (started !== completed + cancelled + failed)
    found.push(
      `${who}: ${started} calls started, but ${completed} completed, ${cancelled} cancelled and ${failed} failed`
    )
  if (opened !== closed) found.push(`${who}: ${opened} streams opened, but ${closed} closed`)
  if (tunnelsOpened !== tunnelsClosed)
    found.push(`${who}: ${tunnelsOpened} tunnels opened, but ${tunnelsClosed} closed`)
  return found
}

/** Calls that wait for their first answer, of one process: more of them at a time only make each other late. */
const maxUnanswered = 256

/**
 * Starts one call of any kind, that its caller may leave; `answered` once it has heard anything, and `done` once it has
 * its status.
 */
const call = (
  client: EchoClient,
  draw: Draw,
  ledger: Ledger,
  metadata: Metadata,
  hold: number,
  { answered, done }: { readonly answered: () => void; readonly done: () => void }
): void => {
  ledger.started++
  let end = (): void => undefined
  let heard = false
  const hear = (): void => {
    if (heard) return
    heard = true
    answered()
    end()
  }
  const settle = ({ code }: StatusObject): void => {
    if (code === Code.OK) ledger.completed++
    else if (code === Code.CANCELLED || code === Code.DEADLINE_EXCEEDED) ledger.cancelled++
    else ledger.failed++
    hear()
    done()
  }
  const request = Buffer.alloc(draw(10) === 0 ? 40_000 : draw(200))
  // Nothing that waits for a frozen peer waits for ever.
  const options = { deadline: Date.now() + (draw(20) === 0 ? draw(50) : 30_000) }
  const leaves = draw(4) === 0
  if (draw(8) === 0) {
    const unary = client.Unary(request, metadata, options, () => undefined)
    unary.on("status", settle)
    if (leaves) setTimeout(() => unary.cancel(), draw(30))
    return
  }
  const bidi = client.Bidi(metadata, options)
  bidi.on("error", () => undefined)
  bidi.on("data", hear)
  bidi.on("status", settle)
  for (let count = draw(3); count >= 0; count--) bidi.write(request)
  // Most streams stay open for a while.
  const stays = draw(hold)
  end = () => void setTimeout(() => (leaves ? bidi.cancel() : bidi.end()), stays)
}

/**
 * Keeps a number of calls going over what `pick` gives, until told to stop; completes when the last one has ended. A
 * new one begins only while few are unanswered, so that many streams are open and the processes keep up with them.
 */
export const callers = (
  pick: () => EchoClient | undefined,
  draw: Draw,
  ledger: Ledger,
  metadata: Metadata,
  width: number,
  hold: number
): { readonly stop: () => Promise<void> } => {
  let stopped = false
  let running = 0
  let unanswered = 0
  let looking: NodeJS.Timeout | undefined
  let idle = (): void => undefined
  const begin = (): void => {
    while (!stopped && running < width && unanswered < maxUnanswered) {
      const client = pick()
      if (client === undefined) {
        // Nothing is open; look again soon.
        looking ??= setTimeout(() => {
          looking = undefined
          begin()
        }, 20)
        return
      }
      running++
      unanswered++
      call(client, draw, ledger, metadata, hold, {
        answered: () => {
          unanswered--
          setImmediate(begin)
        },
        done: () => {
          running--
          setImmediate(begin)
          if (stopped && running === 0) idle()
        }
      })
    }
  }
  begin()
  return {
    stop: () =>
      new Promise((resolve) => {
        stopped = true
        clearTimeout(looking)
        idle = resolve
        if (running === 0) resolve()
      })
  }
}
