import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import * as grpc from "@grpc/grpc-js"
import { loadSync } from "@grpc/proto-loader"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { expect, test } from "vitest"
import { GrpcServer, type StopReport } from "../src/index.ts"
import * as Reflection from "../src/Reflection.ts"
import { Code, run, watching } from "./support/serving.ts"

const packageOf = dirname(createRequire(import.meta.url).resolve("@grpc/reflection/package.json"))
const proto = (version: string) =>
  loadSync(join(packageOf, `build/proto/grpc/reflection/${version}/reflection.proto`), { oneofs: true })

interface Answer {
  readonly listServicesResponse?: { readonly service: ReadonlyArray<{ readonly name: string }> }
  readonly errorResponse?: { readonly errorCode: number }
}

test.each(["v1", "v1alpha"])(
  "%s: tools can ask what is served, and an open question does not hold the server up",
  (version) =>
    run(
      Effect.gen(function* () {
        const { context } = yield* watching
        const scope = yield* Scope.make()
        const reports: Array<StopReport> = []
        const loaded = proto(version)
        const server = yield* GrpcServer.make({
          services: Reflection.services(loaded),
          address: "127.0.0.1:0",
          drain: "10 millis",
          onReport: (report) => reports.push(report)
        }).pipe(Scope.provide(scope), Effect.provide(context))
        const name = `grpc.reflection.${version}.ServerReflection`
        const Stub = grpc.makeGenericClientConstructor(loaded[name] as grpc.ServiceDefinition, "Reflection")
        const stub = new Stub(server.address, grpc.credentials.createInsecure()) as unknown as grpc.Client & {
          ServerReflectionInfo(): grpc.ClientDuplexStream<object, Answer>
        }
        const asked = stub.ServerReflectionInfo()
        asked.on("error", () => undefined)
        const ask = (question: object) =>
          Effect.callback<Answer>((resume) => {
            asked.once("data", (answer: Answer) => resume(Effect.succeed(answer)))
            asked.write(question)
          })
        const listed = yield* ask({ listServices: "" })
        expect(listed.listServicesResponse?.service).toEqual([{ name }])
        const unknown = yield* ask({ fileContainingSymbol: "nobody" })
        expect(unknown.errorResponse?.errorCode).toBe(Code.NOT_FOUND)
        const status = Effect.callback<number>((resume) => {
          asked.on("status", ({ code }: grpc.StatusObject) => resume(Effect.succeed(code)))
        })
        const [code] = yield* Effect.all([status, Scope.close(scope, Exit.void)], {
          concurrency: "unbounded"
        })
        expect(code).toBe(Code.UNAVAILABLE)
        expect(reports[0]?.abandoned).toEqual([])
        stub.close()
      })
    )
)
