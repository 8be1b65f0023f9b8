/**
 * The program behind `npm run reference`: reads the command line and becomes the parent of the scenario, or one of its parts.
 *
 * Modules of a role are loaded when it is known: the parent needs no gRPC, and each process starts sooner.
 */
import { help } from "./cli/help.ts"
import { type Command, parseArguments } from "./cli/parseArguments.ts"
import { connectToParent } from "./process/ParentLink.ts"
import { runProcess, type Setup } from "./process/runProcess.ts"
import type { Lane, TimelineEvent } from "./report/TimelineEvent.ts"
import { ownStyle } from "./report/terminal.ts"
import { eventLines } from "./report/timeline.ts"

type Program = Setup["program"]

const roles: Readonly<Record<Exclude<Command["_tag"], "help">, () => Promise<(command: never) => Program>>> =
  {
    up: async () => {
      const { up } = await import("./scenario/up.ts")
      return (command: Extract<Command, { _tag: "up" }>) => up(command, ownStyle())
    },
    backend: async () => (await import("./backend/backend.ts")).backend,
    gateway: async () => (await import("./gateway/gateway.ts")).gateway,
    agent: async () => (await import("./agent/agent.ts")).agent,
    client: async () => (await import("./scenario/client.ts")).client,
    call: async () => (await import("./call/call.ts")).call
  }

const load = async (tag: keyof typeof roles): Promise<(command: Command) => Program> =>
  (await roles[tag]()) as (command: Command) => Program

const args = process.argv.slice(2)

if (args[0] === "supervised" && process.send !== undefined) {
  const lane = args[1] as Lane
  const program = await load(lane)
  connectToParent((parent, command) => runProcess({ lane, parent, program: program(command) }))
} else {
  const parsed = parseArguments(args)
  if ("problem" in parsed) {
    console.error(parsed.problem)
    process.exitCode = 2
  } else if (parsed.command._tag === "help") console.log(help)
  else {
    const { command } = parsed
    const program = await load(command._tag)
    const quiet = command._tag === "up" || command._tag === "call"
    runProcess({
      lane: laneOf(command._tag),
      program: program(command),
      show: quiet ? undefined : showLive(performance.timeOrigin)
    })
  }
}

function laneOf(tag: Command["_tag"]): Lane {
  return tag === "backend" || tag === "gateway" || tag === "agent" ? tag : "client"
}

function showLive(zero: number): (event: TimelineEvent) => void {
  const style = ownStyle()
  return (event) => {
    for (const line of eventLines(event, zero, style)) console.log(line)
  }
}
