import type { EventEmitter } from "node:events"
import type { Meter } from "./Meter.ts"

/** Adds a listener that the meter counts until the returned function removes it. */
const listen = (
  meter: Meter,
  emitter: EventEmitter,
  event: string,
  // biome-ignore lint/suspicious/noExplicitAny: an event's arguments depend on its name
  listener: (...args: Array<any>) => void
): (() => void) => {
  let on = true
  emitter.on(event, listener)
  meter.listeners++
  return () => {
    if (!on) return
    on = false
    meter.listeners--
    emitter.off(event, listener)
  }
}

/** Several of them, removed together. */
export const listenAll = (
  meter: Meter,
  emitter: EventEmitter,
  // biome-ignore lint/suspicious/noExplicitAny: an event's arguments depend on its name
  listeners: Readonly<Record<string, (...args: Array<any>) => void>>
): (() => void) => {
  const removals = Object.entries(listeners).map(([event, listener]) =>
    listen(meter, emitter, event, listener)
  )
  return () => {
    for (const remove of removals) remove()
  }
}
