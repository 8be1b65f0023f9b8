/**
 * The handlers of a service as a transport calls them: who is let in, and who is told that it is not.
 *
 * Invariants
 * 1. Whoever is let in is in the table until its request has ended; nobody else ever is.
 * 2. Nothing that a handler, a codec or an observer throws goes up into the transport.
 * 3. What the calls of a method share is looked up once, when its service is made.
 */
import { tellCancels } from "@curfew/reason"
import { policyOf } from "@curfew/request"
import { Owner, TaskScope } from "@curfew/scope"
import { status as Code, type ServiceDefinition, type UntypedServiceImplementation } from "@grpc/grpc-js"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"
import type { ServerOptions, Service } from "../../Server.ts"
import { CurrentServerCalls } from "../../ServerCalls.ts"
import { limitCode, unavailable } from "./answer.ts"
import { CallTable } from "./callTable.ts"
import type { HandlerCall } from "./handlerCall.ts"
import { resolveLimits } from "./limits.ts"
import {
  type AnyDefinition,
  type AnyHandler,
  kindOf,
  type MethodSpec,
  type Options,
  passingThrough
} from "./method.ts"
import { ObjectCall, type RawCall, type Respond } from "./objectCall.ts"
import { PlainCall, type PlainHost, plainKey } from "./plainCall.ts"
import { Serving } from "./serving.ts"
import { outgoing } from "./status.ts"
import { MethodMetrics } from "./telemetry.ts"

export const makeService = (
  definition: ServiceDefinition,
  handlers: Readonly<Record<string, AnyHandler>>,
  options: Options
): Effect.Effect<Service, never, Owner> =>
  Effect.gen(function* () {
    // A server counts its cancels, also where a bundler left out what nobody mentions.
    tellCancels()
    const services = yield* Effect.context<Owner>()
    const owner = yield* Owner
    // Flat: each call adds what is its own on top.
    const context = Context.makeUnsafe<never>(new Map(services.mapUnsafe))
    const clock = Context.get(context, Clock.Clock)
    const traced = services.mapUnsafe.has(Tracer.TracerKey)
    const given = options.calls ?? (yield* CurrentServerCalls)
    const table = given === undefined ? yield* CallTable.make({}, services) : (given as CallTable)
    const methodLimits = (options.methodLimits ?? {}) as Readonly<Record<string, ServerOptions["limits"]>>
    const wrapped: Record<string, AnyDefinition> = {}
    const implementation: UntypedServiceImplementation = {}
    for (const [name, method] of Object.entries(definition)) {
      const original = method as AnyDefinition
      const handler =
        handlers[name] ?? (original.originalName === undefined ? undefined : handlers[original.originalName])
      wrapped[name] = passingThrough(original)
      if (handler === undefined) continue
      const spec: MethodSpec = {
        definition: original,
        handler,
        policy: policyOf(handler),
        kind: kindOf(original),
        options,
        limits: resolveLimits(methodLimits[name], options.limits),
        table,
        context,
        clock,
        owner,
        traced,
        metrics: {
          grpc: new MethodMetrics(original.path, "grpc", context),
          tunnel: new MethodMetrics(original.path, "tunnel", context)
        }
      }
      // grpc-js tells handlers apart by what they are registered as, not by what they take.
      const handle = (raw: RawCall, respond?: Respond) => arrive(spec, new ObjectCall(spec, raw, respond))
      const enter = (host: PlainHost, request: Buffer | undefined) =>
        arrive(spec, new PlainCall(spec, host, request))
      implementation[name] = Object.assign(handle, { [plainKey]: enter }) as never
    }
    const service: Service = { definition: wrapped as ServiceDefinition, implementation }
    own.add(service)
    return service
  })

const own = new WeakSet<Service>()

/** Whether the calls of a service keep their own place in the table. */
export const isOwn = (service: Service): boolean => own.has(service)

/** A call has come from the transport; gives it back, for who tells it more. */
const arrive = <Call extends HandlerCall>(spec: MethodSpec, call: Call): Call => {
  const { table } = spec
  if (table.refusing) {
    call.finish(unavailable)
    return call
  }
  const metrics = call.transport === "tunnel" ? spec.metrics.tunnel : spec.metrics.grpc
  const refused = table.admit(call)
  if (refused !== undefined) {
    const { details, limit } = refused
    metrics.refused(limit)
    call.finish(outgoing(limitCode(spec, limit), details))
    return call
  }
  metrics.started()
  if (served(spec, call, metrics)) return call
  call.finish(unavailable)
  metrics.left()
  table.leave(call)
  return call
}

const served = (spec: MethodSpec, call: HandlerCall, metrics: MethodMetrics): boolean => {
  try {
    return new Serving(spec, call, metrics).start()
  } catch (error) {
    // The policy is a function of the program's. Who looks after the owner is told.
    call.finish(outgoing(Code.INTERNAL, "The call could not be answered"))
    TaskScope.spawnUnsafe(spec.owner, spec.context, Effect.die(error), { name: call.method })
    return false
  }
}
