/** How fast each pair is over a forward tunnel, as information: every end is a process of its own. */
import { cpus, loadavg } from "node:os"
import { fileURLToPath } from "node:url"
import { GoProcess, type Programs } from "./goPeer.ts"

const own = fileURLToPath(new URL("./ratesEnd.ts", import.meta.url))

const curfew = (...args: ReadonlyArray<string>): GoProcess =>
  new GoProcess(process.execPath, ["-C", "@curfew/source", own, ...args])

const go = (programs: Programs, role: string, environment: Record<string, string> = {}): GoProcess =>
  new GoProcess(programs.peer, ["-test.run=^TestServing$"], { CURFEW_ROLE: role, ...environment })

type End = "Go" | "Curfew"

const measure = async (programs: Programs, calls: End, serves: End): Promise<Record<string, number>> => {
  const server = serves === "Go" ? go(programs, "serve") : curfew("serve")
  const [, port] = await server.said(/port (\d+)/)
  const address = `127.0.0.1:${port}`
  const caller = calls === "Go" ? go(programs, "rates", { CURFEW_ADDRESS: address }) : curfew("call", address)
  const [, rates] = await caller.said(/rates (.*)\n/)
  caller.kill()
  server.kill()
  return JSON.parse(rates as string)
}

const columns: ReadonlyArray<readonly [key: string, title: string]> = [
  ["unary 1 100", "unary 100 B, 1 caller, calls/s"],
  ["unary 16 100", "16 callers"],
  ["unary 16 10000", "10 kB, 16 callers"],
  ["unary 16 100000", "100 kB, 16 callers"],
  ["stream 1000000", "server stream of 1 MB messages, MB/s"]
]

export const compareRates = async (programs: Programs): Promise<void> => {
  const load = loadavg()[0]?.toFixed(1)
  console.log(`${cpus().length} × ${cpus()[0]?.model}, load ${load}; forward tunnels over the loopback`)
  const cells = (...all: ReadonlyArray<string>): void => console.log(`| ${all.join(" | ")} |`)
  cells("caller", "server", ...columns.map(([, title]) => title))
  cells("---", "---", ...columns.map(() => "--:"))
  for (const calls of ["Go", "Curfew"] as const)
    for (const serves of ["Go", "Curfew"] as const) {
      const rates = await measure(programs, calls, serves)
      cells(calls, serves, ...columns.map(([key]) => (rates[key] ?? 0).toFixed(0)))
    }
}
