import { spawn } from "node:child_process"
import * as Effect from "effect/Effect"
import { credentials, Server, ServerCredentials } from "@grpc/grpc-js"
import { openForward, serveReverse, Services, TunnelService } from "@curfew/tunnel"
import { definition, implementation } from "/work/w/interop/interop/src/testService.ts"
const fc = process.argv[2] ?? "on"
const go = (role: string, env: Record<string,string>) => {
  const child = spawn("/tmp/peer", ["-test.v"], { env: { ...process.env, CURFEW_ROLE: role, CURFEW_FLOW_CONTROL: fc, ...env }, stdio: ["pipe", "pipe", "inherit"] })
  return child
}
const program = Effect.scoped(Effect.gen(function* () {
  const server = new Server()
  const service = yield* TunnelService.make({ maxMessageSize: 16<<20, services: Services.empty.pipe(Services.add(definition as never, implementation as never)), metadata: undefined as never })
  service.addTo(server)
  const port = yield* Effect.promise(() => new Promise<number>((r, j) => server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (e, p) => e ? j(e) : r(p))))
  const child = go("call", { CURFEW_ADDRESS: `127.0.0.1:${port}` })
  child.stdout.on("data", (d) => process.stdout.write(String(d)))
  yield* Effect.promise(() => new Promise((r) => child.on("exit", r)))
  // invite
  const inv = go("invite", {})
  let out = ""
  const p2 = yield* Effect.promise(() => new Promise<number>((r) => inv.stdout.on("data", (d) => { out += d; process.stdout.write(String(d)); const m = /port (\d+)/.exec(out); if (m) r(Number(m[1])) })))
  const t = yield* serveReverse({ address: `127.0.0.1:${p2}`, credentials: credentials.createInsecure() }, Services.empty.pipe(Services.add(definition as never, implementation as never)), { maxMessageSize: 16<<20 })
  yield* Effect.promise(() => new Promise((r) => inv.on("exit", r)))
  server.forceShutdown()
}))
await Effect.runPromise(program as never)
