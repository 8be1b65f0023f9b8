/**
 * The bottom of a call: grpc-js' `Call` with messages in place of bytes, below the interceptors.
 *
 * Invariants
 * 1. A serializer or deserializer that throws, or gives no bytes, ends its call with `INTERNAL`; nothing escapes into
 *    the channel.
 * 2. A cancel hands the typed reason to a channel that has room for it (`Symbol.for("curfew.cancel")` on its call), and
 *    its sentence to every other.
 * 3. Interceptors run in the order and with the options that grpc-js gives them.
 */
import type { CancelReason } from "@curfew/reason"
import {
  type CallOptions as ChannelCallOptions,
  type ChannelInterface,
  type Client as GrpcClient,
  type Interceptor,
  type InterceptorOptions,
  type InterceptorProvider,
  Metadata,
  type MethodDefinition,
  type NextCall,
  type StatusObject,
  status as statusCodes
} from "@grpc/grpc-js"
import type * as Clock from "effect/Clock"

/** What a call looks like to interceptors and to those above them. */
export type InterceptingCall = ReturnType<NextCall>
type ChannelStream = ReturnType<ChannelInterface["createCall"]>
type Listener = Parameters<ChannelStream["start"]>[1]
type Context = Parameters<ChannelStream["sendMessageWithContext"]>[0]

// biome-ignore lint/suspicious/noExplicitAny: The messages of a definition are known to its types alone.
export type AnyMethod = MethodDefinition<any, any>

/**
 * Where a channel's call takes the typed reason of a cancel, `(code, details, reason)`, in place of
 * `cancelWithStatus(code, details)`.
 */
const cancelWithReason: unique symbol = Symbol.for("curfew.cancel") as never

/** Where a channel's call has the clock by which it ends itself at its deadline. */
const deadlineClock: unique symbol = Symbol.for("curfew.clock") as never

/** Whether the call ends itself at its deadline by this clock; below interceptors nobody knows. */
export const keepsDeadline = (call: InterceptingCall, clock: Clock.Clock): boolean =>
  call instanceof ChannelCall && call.clock === clock

interface TakesReason {
  readonly [cancelWithReason]?: ((code: number, details: string, reason: CancelReason) => void) | undefined
}

/** Why a call is being cancelled, told past the interceptors. */
export interface Why {
  reason: CancelReason | undefined
}

const sentence = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** The bytes of a request, or what went wrong in one sentence. */
export const serialize = (method: AnyMethod, message: unknown): Buffer | string => {
  try {
    const bytes: unknown = method.requestSerialize(message)
    if (Buffer.isBuffer(bytes)) return bytes
    if (bytes instanceof Uint8Array) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    return "The request could not be serialized: the serializer of the definition gave no bytes; mend the definition."
  } catch (error) {
    return `The request could not be serialized (${sentence(error)}): check it against the definition.`
  }
}

/** A request whose bytes were made before its call. */
export class Serialized {
  readonly bytes: Buffer
  constructor(bytes: Buffer) {
    this.bytes = bytes
  }
}

class ChannelCall implements Listener {
  readonly #call: ChannelStream
  readonly #method: AnyMethod
  readonly #why: Why
  #listener: Partial<Listener> | undefined
  #broken: string | undefined

  constructor(call: ChannelStream, method: AnyMethod, why: Why) {
    this.#call = call
    this.#method = method
    this.#why = why
  }

  start(metadata: Metadata, listener?: Partial<Listener>): void {
    this.#listener = listener
    // It is the listener itself: closures for each call would cost more than the call's own state.
    this.#call.start(metadata, this)
  }

  onReceiveMetadata(headers: Metadata): void {
    this.#listener?.onReceiveMetadata?.(headers)
  }

  onReceiveMessage(bytes: Buffer): void {
    if (this.#broken !== undefined) return
    let message: unknown
    try {
      message = this.#method.responseDeserialize(bytes)
    } catch (error) {
      this.#broken = `The response could not be decoded (${sentence(error)}): check that both ends use the same definition.`
      this.#call.cancelWithStatus(statusCodes.INTERNAL, this.#broken)
      return
    }
    this.#listener?.onReceiveMessage?.(message)
  }

  onReceiveStatus(status: StatusObject): void {
    const broken = this.#broken
    this.#listener?.onReceiveStatus?.(
      broken === undefined
        ? status
        : { code: statusCodes.INTERNAL, details: broken, metadata: new Metadata() }
    )
  }

  sendMessageWithContext(context: Context, message: unknown): void {
    const bytes = message instanceof Serialized ? message.bytes : serialize(this.#method, message)
    if (typeof bytes === "string") this.#call.cancelWithStatus(statusCodes.INTERNAL, bytes)
    else this.#call.sendMessageWithContext(context, bytes)
  }

  get clock(): unknown {
    return (this.#call as { readonly [deadlineClock]?: unknown })[deadlineClock]
  }

  sendMessage(message: unknown): void {
    this.sendMessageWithContext({}, message)
  }

  cancelWithStatus(code: number, details: string): void {
    const { reason } = this.#why
    const takes = (this.#call as TakesReason)[cancelWithReason]
    if (reason === undefined || takes === undefined) this.#call.cancelWithStatus(code, details)
    else takes.call(this.#call, code, details, reason)
  }

  startRead(): void {
    this.#call.startRead()
  }

  halfClose(): void {
    this.#call.halfClose()
  }

  getPeer(): string {
    return this.#call.getPeer()
  }

  getAuthContext(): ReturnType<InterceptingCall["getAuthContext"]> {
    return this.#call.getAuthContext()
  }
}

/** A call as grpc-js' own client makes it, which names neither host nor parent unless somebody asks for them. */
const onChannel = (
  channel: ChannelInterface,
  method: AnyMethod,
  deadline: Date | number,
  credentials: ChannelCallOptions["credentials"] | undefined,
  why: Why,
  options?: ChannelCallOptions
): ChannelCall => {
  const call = channel.createCall(
    method.path,
    deadline,
    options?.host,
    options?.parent ?? null,
    options?.propagate_flags
  )
  if (credentials !== undefined) call.setCredentials(credentials)
  return new ChannelCall(call, method, why)
}

/** Makes a call on the channel, below the interceptors. What the channel throws, this throws. */
export const connect = (
  channel: ChannelInterface,
  method: AnyMethod,
  interceptors: ReadonlyArray<Interceptor>,
  deadline: number,
  credentials: ChannelCallOptions["credentials"] | undefined,
  why: Why
): InterceptingCall => {
  if (interceptors.length === 0) return onChannel(channel, method, deadline, credentials, why)
  const bottom: NextCall = (o) =>
    onChannel(channel, method, o.deadline ?? Number.POSITIVE_INFINITY, o.credentials, why, o)
  const next = interceptors.reduceRight<NextCall>(
    (nextCall, interceptor) => (o) => interceptor(o, nextCall),
    bottom
  )
  const all: InterceptorOptions = {
    deadline,
    ...(credentials === undefined ? {} : { credentials }),
    method_definition: method
  }
  return next(all)
}

/**
 * The interceptors that a grpc-js client was made with. They stand below symbols without a name, in the order of the
 * constructor; a pinned test watches that.
 */
export const interceptorsOf = (
  client: GrpcClient
): ((method: AnyMethod) => ReadonlyArray<Interceptor>) | undefined => {
  const fields = client as unknown as Record<symbol, unknown>
  const [own, providers] = Object.getOwnPropertySymbols(client)
    .map((symbol) => fields[symbol])
    .filter(Array.isArray) as [Array<Interceptor>?, Array<InterceptorProvider>?]
  if ((own?.length ?? 0) === 0 && (providers?.length ?? 0) === 0) return undefined
  return (method) =>
    [...(own ?? []), ...(providers ?? []).map((provider) => provider(method))].filter(
      (interceptor) => interceptor !== undefined && interceptor !== null
    )
}
