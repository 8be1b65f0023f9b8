import type { Command } from "../cli/parseArguments.ts"
import type { FromChild, Signal, ToChild } from "./messages.ts"

/** What a child does when its parent says something. */
interface ParentListener {
  readonly stop: () => void
  readonly signal: (signal: Signal) => void
  readonly count: () => void
  /** The parent has ended, or its channel has. */
  readonly gone: () => void
}

/** A child's end of the channel to its parent. */
export interface ParentLink {
  readonly send: (message: FromChild, sent?: () => void) => void
  readonly listen: (listener: ParentListener) => void
}

/**
 * Waits for the parent's word to start, with the modules loaded meanwhile, and gives the command. A parent that goes
 * away before takes this process along.
 */
export const connectToParent = (start: (parent: ParentLink, command: Command) => void): void => {
  let listener: ParentListener | undefined
  const send: ParentLink["send"] = (message, sent) => {
    if (process.connected) process.send?.(message, undefined, {}, () => sent?.())
    else sent?.()
  }
  const link: ParentLink = {
    send,
    listen: (given) => {
      listener = given
    }
  }
  process.on("disconnect", () => (listener === undefined ? process.exit(1) : listener.gone()))
  process.on("SIGINT", () => undefined)
  process.on("message", (message: ToChild) => {
    switch (message.type) {
      case "start":
        return start(link, message.command)
      case "stop":
        return listener === undefined ? process.exit(1) : listener.stop()
      case "signal":
        return listener?.signal(message.signal)
      case "count":
        return listener?.count()
    }
  })
  send({ type: "loaded" })
}
