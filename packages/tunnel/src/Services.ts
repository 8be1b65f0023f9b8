import type {
  MethodDefinition,
  ServerDuplexStream,
  ServiceDefinition,
  UntypedServiceImplementation
} from "@grpc/grpc-js"
import { identity } from "./internal/grpcCarrier.ts"
import { bound } from "./internal/plainCall.ts"

/** A method with its handler, bound to its implementation. */
export interface RegisteredMethod {
  readonly definition: MethodDefinition<unknown, unknown>
  readonly handler: (...args: ReadonlyArray<unknown>) => unknown
}

/**
 * The services that a tunnel offers: what is given to `grpc.Server.addService`, kept as a value.
 *
 * **Guarantees**
 *
 * - **Unchanged handlers**: a definition and an implementation that run in a `grpc.Server` run in a tunnel.
 *
 * **Gotchas**
 *
 * Paths are matched with and without their leading slash. A method whose handler is missing answers `UNIMPLEMENTED`.
 *
 * **Example**
 *
 * ```ts
 * import { Services } from "@curfew/tunnel"
 *
 * const services = Services.empty.pipe(Services.add({}, {}))
 * services.methods.size // => 0
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Services {
  /** By path, without the leading slash: `pkg.Service/Method`. */
  readonly methods: ReadonlyMap<string, RegisteredMethod>
  /** Takes the calls of methods that were not added; see {@link fallback}. */
  readonly fallback?: RegisteredMethod
  readonly pipe: <A extends ReadonlyArray<(self: Services) => Services>>(...steps: A) => Services
}

const make = (methods: ReadonlyMap<string, RegisteredMethod>, fallback?: RegisteredMethod): Services => {
  const self: Services = {
    methods,
    ...(fallback === undefined ? {} : { fallback }),
    pipe: (...steps) => steps.reduce((services, step) => step(services), self)
  }
  return self
}

/**
 * No services: every call is answered `UNIMPLEMENTED`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const empty: Services = /* @__PURE__ */ make(new Map())

/**
 * Adds a service. Of two handlers for one path the later one counts.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const add =
  (definition: ServiceDefinition, implementation: UntypedServiceImplementation) =>
  (self: Services): Services => {
    const methods = new Map(self.methods)
    for (const [name, method] of Object.entries(definition)) {
      const handler =
        implementation[name] ?? (method.originalName ? implementation[method.originalName] : undefined)
      if (handler === undefined) continue
      methods.set(withoutSlash(method.path), {
        definition: method as MethodDefinition<unknown, unknown>,
        handler: bound(handler as RegisteredMethod["handler"], implementation)
      })
    }
    return make(methods, self.fallback)
  }

/**
 * Gives every call of a method that was not added to one handler, as bytes: for a proxy, which knows no definitions.
 * The call has both sides streaming, whatever the method's kind, and `call.getPath()` names the method.
 *
 * **Guarantees**
 *
 * - **Bytes in, bytes out**: a message is the `Buffer` that the caller serialized, and what is written is sent as it is.
 *
 * **Gotchas**
 *
 * The caller of a unary method expects one message and then the status; nobody but the handler sees to that.
 *
 * **Example**
 *
 * ```ts
 * import { Services } from "@curfew/tunnel"
 *
 * const echo = Services.empty.pipe(
 *   Services.fallback((call) => {
 *     call.on("data", (message: Buffer) => call.write(message))
 *     call.on("end", () => call.end())
 *   })
 * )
 * echo.methods.size // => 0
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const fallback =
  (handler: (call: ServerDuplexStream<Buffer, Buffer>) => unknown) =>
  (self: Services): Services =>
    make(self.methods, { definition: anyMethod, handler: handler as RegisteredMethod["handler"] })

const anyMethod: MethodDefinition<unknown, unknown> = {
  path: "",
  requestStream: true,
  responseStream: true,
  requestSerialize: identity as (bytes: unknown) => Buffer,
  requestDeserialize: identity,
  responseSerialize: identity as (bytes: unknown) => Buffer,
  responseDeserialize: identity
}

const withoutSlash = (path: string): string => (path.startsWith("/") ? path.slice(1) : path)
