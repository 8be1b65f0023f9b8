#!/usr/bin/env node
/**
 * `curfew-tunnel`: reaches gRPC services behind NAT. `curfew-tunnel --help` tells more.
 */
import { readFileSync } from "node:fs"
import { agent } from "./internal/agent.ts"
import { parse } from "./internal/commandLine.ts"
import { connect } from "./internal/connect.ts"
import { gateway } from "./internal/gateway.ts"
import { runCommand } from "./internal/run.ts"
import { runStatus } from "./internal/status.ts"

const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  readonly version: string
}

const parsed = parse(process.argv.slice(2), process.env, version)
switch (parsed._tag) {
  case "text":
    process.stdout.write(`${parsed.text}\n`)
    break
  case "mistake":
    process.stderr.write(`${parsed.sentence}\n`)
    process.exitCode = 2
    break
  case "gateway":
    runCommand("gateway", gateway, parsed.flags)
    break
  case "agent":
    runCommand("agent", agent, parsed.flags)
    break
  case "connect":
    runCommand("connect", connect, parsed.flags)
    break
  case "status":
    runStatus(parsed.flags)
}
