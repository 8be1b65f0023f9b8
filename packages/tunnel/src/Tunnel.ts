import type { ConnectionOptions } from "node:tls"
import { CancelReason, currentReason } from "@curfew/reason"
import { TaskScope } from "@curfew/scope"
import {
  type ChannelCredentials,
  type ChannelOptions,
  type Client,
  status as Code,
  type Metadata
} from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { Admission } from "./internal/admission.ts"
import { runForward, runReverse } from "./internal/dialling.ts"
import { checkLimits } from "./internal/limits.ts"
import type { Services } from "./Services.ts"
import type { Authorize } from "./TunnelAuth.ts"
import type { TunnelChannel, TunnelHandle } from "./TunnelChannel.ts"
import { TunnelOpenError } from "./TunnelError.ts"
import type { KeepaliveOptions, TunnelOptions } from "./TunnelOptions.ts"

/**
 * Where the network server is: an address, or a grpc-js client that is there.
 *
 * With `tls` the tunnel has an HTTP/2 connection of its own, without grpc-js in between: many frames leave in one write,
 * whoever the peer is, and the server may send `window` bytes ahead. The address is `host:port` or `unix:/path`; a name
 * with several addresses is tried at each. No proxy of the environment is used. With `credentials` the tunnel does the
 * same where it can: in the clear, without `channelOptions`, at an address of that form, with no proxy in the
 * environment. Otherwise it makes a grpc-js channel, without grpc-js' retry buffer, which a tunnel has no use for and
 * which makes backpressure fictional; give `grpc.per_rpc_retry_buffer_size: 0` to a client of yours for the same effect.
 *
 * **Gotchas**
 *
 * - The credentials of grpc-js do not show their keys, so TLS by `credentials` takes grpc-js: give `tls` for speed.
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
  | {
      readonly address: string
      /** What `tls.connect` of Node takes, or false for a connection in the clear. */
      readonly tls: ConnectionOptions | false
      /** Bytes that the server may send ahead on the connection. Default 8 MiB. */
      readonly window?: number
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
  /**
   * Pings that notice a network server that is frozen or cut off, within `time` and `timeout` together: 40 seconds by
   * default. Where the endpoint is a client of yours, its own channel options count instead.
   */
  readonly keepalive?: KeepaliveOptions
  /** Lets a call of a reverse tunnel in, or refuses it. Default: every call is let in. */
  readonly authorize?: Authorize<undefined>
}

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
 * @see serveReverse where the network server calls, `Agent.connect` to stay connected
 * @stability unstable
 * @since 0.1.0
 */
export const openForward = (
  to: Endpoint,
  options: ConnectOptions = {}
): Effect.Effect<TunnelChannel, TunnelOpenError, Scope.Scope> =>
  Effect.andThen(
    checkLimits(options),
    opening<TunnelChannel>("forward tunnel", (ready) => runForward(to, options, ready))
  )

/**
 * Opens a reverse tunnel: this end dials and handles, the network server calls. It does not reconnect:
 * its end shows in `closed`.
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
 * @see openForward where this end calls, `Agent.serve` to stay connected
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
    opening("reverse tunnel", (ready) => runReverse(to, services, new Admission(), options, ready))
  )
