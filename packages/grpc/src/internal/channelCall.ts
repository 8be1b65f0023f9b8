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
  status as statusCodes
} from "@grpc/grpc-js"

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

class ChannelCall {
  readonly #call: ChannelStream
  readonly #method: AnyMethod
  readonly #why: Why

  constructor(call: ChannelStream, method: AnyMethod, why: Why) {
    this.#call = call
    this.#method = method
    this.#why = why
  }

  start(metadata: Metadata, listener?: Partial<Listener>): void {
    let broken: string | undefined
    this.#call.start(metadata, {
      onReceiveMetadata: (headers) => listener?.onReceiveMetadata?.(headers),
      onReceiveMessage: (bytes: Buffer) => {
        if (broken !== undefined) return
        let message: unknown
        try {
          message = this.#method.responseDeserialize(bytes)
        } catch (error) {
          broken = `The response could not be decoded (${sentence(error)}): check that both ends use the same definition.`
          this.#call.cancelWithStatus(statusCodes.INTERNAL, broken)
          return
        }
        listener?.onReceiveMessage?.(message)
      },
      onReceiveStatus: (status) =>
        listener?.onReceiveStatus?.(
          broken === undefined
            ? status
            : { code: statusCodes.INTERNAL, details: broken, metadata: new Metadata() }
        )
    })
  }

  sendMessageWithContext(context: Context, message: unknown): void {
    const bytes = serialize(this.#method, message)
    if (typeof bytes === "string") this.#call.cancelWithStatus(statusCodes.INTERNAL, bytes)
    else this.#call.sendMessageWithContext(context, bytes)
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

/** Makes a call on the channel, below the interceptors. What the channel throws, this throws. */
export const connect = (
  channel: ChannelInterface,
  method: AnyMethod,
  interceptors: ReadonlyArray<Interceptor>,
  options: ChannelCallOptions,
  why: Why
): InterceptingCall => {
  const bottom: NextCall = (o) => {
    const call = channel.createCall(
      method.path,
      o.deadline ?? Number.POSITIVE_INFINITY,
      o.host,
      o.parent ?? null,
      o.propagate_flags
    )
    if (o.credentials !== undefined) call.setCredentials(o.credentials)
    return new ChannelCall(call, method, why)
  }
  const next = interceptors.reduceRight<NextCall>(
    (nextCall, interceptor) => (o) => interceptor(o, nextCall),
    bottom
  )
  const all: InterceptorOptions = { ...options, method_definition: method }
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
