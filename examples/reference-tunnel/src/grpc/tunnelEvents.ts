import { describe } from "@curfew/reason"
import type { StreamFinalizer, TunnelEvent } from "@curfew/tunnel"
import { status as Code } from "@grpc/grpc-js"
import * as Duration from "effect/Duration"
import type { Meter } from "../process/Meter.ts"
import type { Process } from "../process/Process.ts"

export interface TunnelEvents {
  /** For the tunnel's `observer` option. */
  readonly observer: (event: TunnelEvent) => void
  /** Names the call behind the stream that has opened last; handlers start in the turn in which their stream opens. */
  readonly name: (label: string) => void
}

/** What a stream's finalizers close, in the words of the timeline. */
const closed: Readonly<Record<StreamFinalizer, string>> = {
  wire: "frames",
  handler: "the handler",
  status: "the caller's status",
  registry: "its entry"
}

/**
 * Tells the timeline what happens in a tunnel and counts what is open in it. `labelOf` names the call behind a stream
 * that opens, at the end that knows it then.
 */
export const observe = (
  { meter, now, say, signal }: Process["Service"],
  labelOf: () => string | undefined = () => undefined
): TunnelEvents => {
  const streams = new Map<string, Stream>()
  let last: Stream | undefined
  const observer = (event: TunnelEvent): void => {
    count(meter, event)
    if (event._tag === "TunnelOpened") {
      const role = event.side === "client" ? "calls" : "is called"
      say({ mark: "start", text: `a ${event.kind} tunnel is open; this end ${role}` })
      return
    }
    if (event._tag === "TunnelClosed") {
      const end = event.end
      const how = {
        ClosedHere: "from this end",
        ClosedByPeer: "from the other end",
        Lost: "with its connection",
        Violated: "by a broken rule"
      }[end._tag]
      const why =
        end._tag === "ClosedHere"
          ? `: ${describe(end.reason)}`
          : "error" in end
            ? `: ${end.error.message}`
            : ""
      say({ mark: "end", text: `the tunnel closes ${how}${why}`, took: undefined })
      return
    }
    if (event._tag === "TunnelDraining") {
      const who = event.by === "here" ? "this end" : "the other end"
      say({ mark: "note", text: `${who} drains the tunnel: no new streams` })
      return
    }
    const key = `${event.tunnel} ${event.side} ${event.stream}`
    if (event._tag === "StreamOpened") {
      const opened: Stream = { call: labelOf(), finalizers: [], cancelledAt: undefined }
      streams.set(key, opened)
      last = opened
      if (event.side === "client") {
        say({ mark: "start", call: opened.call, stream: event.stream, text: `stream ${event.stream} opens` })
      }
      return
    }
    const stream: Stream = streams.get(key) ?? { call: undefined, finalizers: [], cancelledAt: undefined }
    const about = { call: stream.call, stream: event.stream }
    switch (event._tag) {
      case "StreamRefused":
        say({ mark: "fault", ...about, text: `stream ${event.stream} is refused: ${event.details}` })
        return
      case "StreamCancelled":
        stream.cancelledAt = now()
        say({
          mark: "cancel",
          ...about,
          text: `stream ${event.stream} is cancelled: ${describe(event.reason)}`
        })
        return
      case "LateWrite":
        say({ mark: "note", ...about, text: `a late ${event.what} is dropped: the caller has left` })
        return
      case "FinalizerRan":
        stream.finalizers.push(event.finalizer)
        return
      case "StreamClosed": {
        streams.delete(key)
        const order = stream.finalizers.map((it) => closed[it]).join(", then ")
        const code = Code[event.code] ?? String(event.code)
        say(
          stream.cancelledAt === undefined
            ? {
                mark: "end",
                ...about,
                text: `stream ${event.stream} ends ${code}`,
                took: Duration.toMillis(event.duration)
              }
            : {
                mark: "cleanup",
                ...about,
                text: `stream ${event.stream} closes: ${order}`,
                took: now() - stream.cancelledAt
              }
        )
        const name = event.side === "client" ? "calling stream closed" : "called stream closed"
        if (stream.call !== undefined) signal({ name, call: stream.call })
      }
    }
  }
  return {
    observer,
    name: (label) => {
      if (last !== undefined) last.call = label
    }
  }
}

interface Stream {
  call: string | undefined
  readonly finalizers: Array<StreamFinalizer>
  cancelledAt: number | undefined
}

const count = (meter: Meter, event: TunnelEvent): void => {
  if (event._tag === "TunnelOpened" || event._tag === "StreamOpened") meter.openStreams++
  if (event._tag === "TunnelClosed" || event._tag === "StreamClosed") meter.openStreams--
  if (event._tag === "LateWrite") meter.lateWrites++
}
