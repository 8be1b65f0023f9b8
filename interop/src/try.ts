import { spawn } from "node:child_process"
import * as Effect from "effect/Effect"
import { credentials, Server, ServerCredentials } from "@grpc/grpc-js"
import { serveReverse, Services, TunnelService } from "@curfew/tunnel"
import { definition, implementation } from "./testService.ts"
const fc = process.argv[2] ?? "on"
const mine = { maxMessageSize: 16 << 20, flowControl: process.argv[3] !== "off" }
const go = (role: string, env: Record<string, string>) =>
  spawn("/tmp/peer", ["-test.v"], { env: { ...process.env, CURFEW_ROLE: role, CURFEW_FLOW_CONTROL: fc, ...env }, stdio: ["pipe", "pipe", "inherit"] })
const base = Services.empty.pipe(Services.add(definition as never, implementation as never))
const program = Effect.scoped(Effect.gen(function* () {
  const server = new Server()
  const service = yield* TunnelService.make({ ...mine, services: (self) => base.pipe(Services.add(self.definition, self.implementation)) })
  service.addTo(server)
  const port = yield* Effect.promise(() => new Promise<number>((r, j) => server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (e, p) => e ? j(e) : r(p))))
  const child = go("call", { CURFEW_ADDRESS: `127.0.0.1:${port}` })
  child.stdout.on("data", (d) => process.stdout.write(String(d)))
  yield* Effect.promise(() => new Promise((r) => child.on("exit", r)))
  const inv = go("invite", {})
  let out = ""
  const p2 = yield* Effect.promise(() => new Promise<number>((r) => inv.stdout.on("data", (d) => { out += d; process.stdout.write(String(d)); const m = /port (\d+)/.exec(out); if (m) r(Number(m[1])) })))
  const agent = yield* TunnelService.make({ ...mine, services: base })
  yield* serveReverse({ address: `127.0.0.1:${p2}`, credentials: credentials.createInsecure() }, base.pipe(Services.add(agent.definition, agent.implementation)), mine)
  yield* Effect.promise(() => new Promise((r) => inv.on("exit", r)))
  server.forceShutdown()
}))
await Effect.runPromise(program as never)
