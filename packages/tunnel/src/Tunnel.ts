import { CancelReason, currentReason } from "@curfew/reason"
import { TaskScope } from "@curfew/scope"
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  status as Code,
  type Metadata
} from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { Admission } from "./internal/admission.ts"
import type { Carrier } from "./internal/carrier.ts"
import { dial, paths } from "./internal/grpcCarrier.ts"
import { checkLimits, limitsOf } from "./internal/limits.ts"
import { runClient, runServer } from "./internal/tunnel.ts"
import type { Services } from "./Services.ts"
import type { TunnelChannel, TunnelHandle } from "./TunnelChannel.ts"
import { TunnelOpenError } from "./TunnelError.ts"
import type { TunnelOptions } from "./TunnelOptions.ts"

/**
 * Where the network server is: an address that the tunnel makes a channel for, or a grpc-js client that is there.
 *
 * A channel of the tunnel's own does without grpc-js' retry buffer, which a tunnel has no use for and which makes
 * backpressure fictional; give `grpc.per_rpc_retry_buffer_size: 0` to a client of yours for the same effect.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Endpoint =
  | {
      readonly address: string
      readonly credentials: ChannelCredentials
      readonly channelOptions?: ChannelOptions
    }
  | { readonly client: Client }

/**
 * Options of the end that dials.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ConnectOptions extends TunnelOptions {
  /** Request headers of the outer call: who this is, for the network server. */
  readonly metadata?: Metadata
}

const clientOf = (to: Endpoint): Effect.Effect<Client, never, Scope.Scope> =>
  "client" in to
    ? Effect.succeed(to.client)
    : Effect.acquireRelease(
        Effect.sync(
          () =>
            new Client(to.address, to.credentials, {
              "grpc.per_rpc_retry_buffer_size": 0,
              ...to.channelOptions
            })
        ),
        (client) => Effect.sync(() => client.close())
      )

/** Opens the outer call; it ends with the scope. */
const connect = (
  to: Endpoint,
  path: string,
  options: ConnectOptions
): Effect.Effect<Carrier, TunnelOpenError, Scope.Scope> =>
  Effect.flatMap(clientOf(to), (client) =>
    Effect.acquireRelease(
      Effect.timeoutOrElse(dial(client, path, options.metadata), {
        duration: limitsOf(options).openTimeout,
        orElse: () =>
          Effect.fail(
            new TunnelOpenError({
              code: Code.DEADLINE_EXCEEDED,
              details: "The peer sent no response headers in time"
            })
          )
      }),
      (carrier) => carrier.end(),
      { interruptible: true }
    )
  )

const neverOpened = /* @__PURE__ */ new TunnelOpenError({
  code: Code.CANCELLED,
  details: "The scope of the tunnel ended first"
})

const shutdown = /* @__PURE__ */ CancelReason.Shutdown({ phase: "force" })

/** Runs a tunnel's life as a task of the surrounding scope and gives its handle once it is ready. */
const opening = <H extends TunnelHandle>(
  name: string,
  life: (ready: (handle: H) => Effect.Effect<unknown>) => Effect.Effect<void, TunnelOpenError, Scope.Scope>
): Effect.Effect<H, TunnelOpenError, Scope.Scope> =>
  Effect.gen(function* () {
    const tasks = yield* TaskScope.make({ name })
    const opened = Deferred.makeUnsafe<H, TunnelOpenError>()
    const scoped = Effect.scoped(life((handle) => Deferred.succeed(opened, handle)))
    const settled = Effect.catch(scoped, (error) => Effect.asVoid(Deferred.fail(opened, error))).pipe(
      Effect.ensuring(Deferred.fail(opened, neverOpened))
    )
    const task = yield* Effect.orDie(tasks.spawn(settled, { name }))
    const handle = yield* Effect.onInterrupt(Deferred.await(opened), () =>
      Effect.andThen(task.cancel(), task.exit)
    )
    yield* Effect.addFinalizer(() =>
      Effect.flatMap(currentReason, (reason) => handle.close(Option.getOrElse(reason, () => shutdown)))
    )
    return handle
  })

/**
 * Opens a forward tunnel: this end dials and calls, the network server handles.
 *
 * **Guarantees**
 *
 * - **Ready or failed**: succeeds once calls can be made, and fails with `TunnelOpenError` within `openTimeout` for
 *   each of the two things that it waits for.
 * - **Owned**: the tunnel ends with the surrounding scope, and nothing of it outlives the scope.
 *
 * **When cancelled**
 *
 * While opening: the outer call is cancelled and awaited. Afterwards the scope decides: its end cancels every call
 * with a reason, waits for each, and closes the outer call.
 *
 * **Example**
 *
 * ```ts no-run
 * import * as Effect from "effect/Effect"
 * import { credentials } from "@grpc/grpc-js"
 * import { openForward } from "@curfew/tunnel"
 *
 * const program = Effect.scoped(
 *   Effect.gen(function* () {
 *     const tunnel = yield* openForward({ address: "localhost:50051", credentials: credentials.createInsecure() })
 *     return tunnel.grpc.getConnectivityState(false)
 *   })
 * )
 * ```
 *
 * @see serveReverse where the network server calls
 * @stability unstable
 * @since 0.1.0
 */
export const openForward = (
  to: Endpoint,
  options: ConnectOptions = {}
): Effect.Effect<TunnelChannel, TunnelOpenError, Scope.Scope> =>
  Effect.andThen(
    checkLimits(options),
    opening<TunnelChannel>("forward tunnel", (ready) =>
      Effect.flatMap(connect(to, paths.forward, options), (carrier) =>
        runClient(carrier, "forward", options, ready)
      )
    )
  )

/**
 * Opens a reverse tunnel: this end dials and handles, the network server calls. Reconnecting is up to the caller,
 * who sees the end in `closed`.
 *
 * **Guarantees**
 *
 * - **Ready or failed**: succeeds once the network server has accepted the outer call, and fails with
 *   `TunnelOpenError` within `openTimeout` otherwise.
 * - **Owned**: every handler's call is cancelled when the tunnel ends, and the tunnel ends with the surrounding scope.
 *
 * **When cancelled**
 *
 * While opening: the outer call is cancelled and awaited. Afterwards the scope decides: its end cancels every call
 * with a reason, waits for the handlers within the clean-up budget, and closes the outer call.
 *
 * **Example**
 *
 * ```ts no-run
 * import * as Effect from "effect/Effect"
 * import { credentials } from "@grpc/grpc-js"
 * import { Services, serveReverse } from "@curfew/tunnel"
 *
 * const program = Effect.scoped(
 *   Effect.gen(function* () {
 *     const to = { address: "localhost:50051", credentials: credentials.createInsecure() }
 *     const serving = yield* serveReverse(to, Services.empty)
 *     return yield* serving.closed
 *   })
 * )
 * ```
 *
 * @see openForward where this end calls
 * @stability unstable
 * @since 0.1.0
 */
export const serveReverse = (
  to: Endpoint,
  services: Services,
  options: ConnectOptions = {}
): Effect.Effect<TunnelHandle, TunnelOpenError, Scope.Scope> =>
  Effect.andThen(
    checkLimits(options),
    opening("reverse tunnel", (ready) =>
      Effect.flatMap(connect(to, paths.reverse, options), (carrier) =>
        runServer(carrier, "reverse", services, new Admission(), options, ready)
      )
    )
  )
