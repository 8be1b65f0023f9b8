/**
 * The Curfew end of the seven steps: a tunnel server with one slow unary method. Forward: a network server that prints
 * "port N". Reverse, with CURFEW_ADDRESS: it dials, and dials again whenever its tunnel has ended. For each line on its
 * standard input it prints one line of counts; it ends with its standard input.
 */
import { createInterface } from "node:readline"
import { Services, serveReverse, TunnelService } from "@curfew/tunnel"
import { credentials, type handleUnaryCall, Server, ServerCredentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import { definition, implementation, type Message } from "./testService.ts"

const counts = { started: 0, told: 0, completed: 0 }
let fibers = 0

/** Works on for a while, whether or not its caller is still there, and notices when it is told. */
const slow: handleUnaryCall<Message, Partial<Message>> = (call, answer) => {
  counts.started++
  let told = false
  call.once("cancelled", () => {
    told = true
  })
  setTimeout(() => {
    if (told) counts.told++
    counts.completed++
    answer(null, {})
  }, call.request.delay_millis)
}

// Everything that goes wrong is told on the standard error, a line that begins with this for each.
const report = (what: string) => (error: unknown) => console.error(`Error: ${what}: ${String(error)}`)
for (const event of ["uncaughtException", "unhandledRejection", "warning"] as const)
  process.on(event, report(event))
const logger = Logger.make(({ logLevel, message }) => {
  if (["Warn", "Error", "Fatal"].includes(logLevel)) report(logLevel)(message)
})

const services = Services.empty.pipe(Services.add(definition, { ...implementation, Unary: slow }))

const forward = Effect.gen(function* () {
  const server = yield* Effect.acquireRelease(
    Effect.sync(() => new Server()),
    (server) => Effect.sync(() => server.forceShutdown())
  )
  const service = yield* TunnelService.make({ services })
  service.addTo(server)
  yield* Effect.callback<void>((resume) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
      if (error !== null) throw error
      console.log(`port ${port}`)
      resume(Effect.void)
    })
  })
  yield* Effect.never
})

/** Dials, and dials again whenever its tunnel has ended. */
const agent = (address: string) =>
  Effect.scoped(
    Effect.flatMap(
      serveReverse({ address, credentials: credentials.createInsecure() }, services),
      ({ closed }) => closed
    )
  ).pipe(Effect.ignore, Effect.andThen(Effect.sleep("20 millis")), Effect.forever)

const input = Effect.callback<void>((resume) => {
  const lines = createInterface({ input: process.stdin })
  lines.on("line", () => console.log(`counts ${JSON.stringify({ ...counts, tasks: fibers })}`))
  lines.on("close", () => resume(Effect.void))
})

const address = process.env["CURFEW_ADDRESS"]
const serve = Effect.raceFirst(input, address === undefined ? forward : agent(address)).pipe(
  Effect.scoped,
  Effect.provideService(Metric.FiberRuntimeMetrics, {
    recordFiberStart: () => void fibers++,
    recordFiberEnd: () => void fibers--
  }),
  Effect.provideService(References.CurrentLoggers, new Set([logger])),
  Effect.provideService(References.MinimumLogLevel, "All")
)

await Effect.runPromise(serve)
