/** A grpc-js channel without a wire: the test sees what each call does to it and plays the server. */
import * as grpc from "@grpc/grpc-js"

type Call = ReturnType<grpc.ChannelInterface["createCall"]>
type Listener = Parameters<Call["start"]>[1]
type Context = Parameters<Call["sendMessageWithContext"]>[0]

export class MemoryCall implements Call {
  readonly method: string
  readonly deadline: Date | number
  readonly sent: Array<string> = []
  metadata = new grpc.Metadata()
  cancelledWith: { readonly code: number; readonly details: string; readonly reason?: unknown } | undefined
  halfClosed = false
  ended = false
  /** Reads that were asked for and not answered. */
  reads = 0
  /** Writes whose callback has not come. */
  writing = 0
  mostWriting = 0
  /** Leaves write callbacks to the test. */
  hold = false
  readonly held: Array<() => void> = []
  #listener: Listener | undefined
  readonly #onEvent: (call: MemoryCall, event: "start" | "message" | "halfClose") => void

  constructor(
    method: string,
    deadline: Date | number,
    onEvent: (call: MemoryCall, event: "start" | "message" | "halfClose") => void
  ) {
    this.method = method
    this.deadline = deadline
    this.#onEvent = onEvent
  }

  start(metadata: grpc.Metadata, listener: Listener): void {
    this.metadata = metadata
    this.#listener = listener
    this.#onEvent(this, "start")
  }

  sendMessageWithContext(context: Context, message: Buffer): void {
    this.sent.push(message.toString())
    this.writing++
    this.mostWriting = Math.max(this.mostWriting, this.writing)
    const done = () => {
      this.writing--
      context.callback?.()
    }
    if (this.hold) this.held.push(done)
    else process.nextTick(done)
    this.#onEvent(this, "message")
  }

  startRead(): void {
    this.reads++
  }

  halfClose(): void {
    this.halfClosed = true
    this.#onEvent(this, "halfClose")
  }

  cancelWithStatus(code: number, details: string): void {
    this.cancelledWith ??= { code, details }
    this.end(code, details)
  }

  setCredentials(): void {}
  getPeer(): string {
    return "memory"
  }
  getCallNumber(): number {
    return 0
  }
  getAuthContext(): null {
    return null
  }

  /** The server's side. */
  message(text: string): void {
    process.nextTick(() => {
      if (this.ended) return
      this.reads--
      this.#listener?.onReceiveMessage(Buffer.from(text))
    })
  }

  end(code: number, details = "", trailers = new grpc.Metadata()): void {
    process.nextTick(() => {
      if (this.ended) return
      this.ended = true
      this.#listener?.onReceiveStatus({ code, details, metadata: trailers })
    })
  }
}

/** Makes a call take the typed reason of its cancel. */
const takeReason = (call: MemoryCall): MemoryCall =>
  Object.assign(call, {
    [Symbol.for("curfew.cancel")]: (code: number, details: string, reason: unknown): void => {
      call.cancelledWith = { code, details, reason }
      call.end(code, details)
    }
  })

export const memoryChannel = (
  onEvent: (call: MemoryCall, event: "start" | "message" | "halfClose") => void = () => {},
  options: { readonly reasoned?: boolean } = {}
) => {
  const calls: Array<MemoryCall> = []
  const channel: grpc.ChannelInterface = {
    close: () => {},
    getTarget: () => "memory",
    getConnectivityState: () => grpc.connectivityState.READY,
    watchConnectivityState: () => {},
    getChannelzRef: () => ({ kind: "channel", id: 0, name: "memory" }) as never,
    createCall: (method, deadline) => {
      const call = new MemoryCall(method, deadline, onEvent)
      if (options.reasoned === true) takeReason(call)
      calls.push(call)
      return call
    }
  }
  return { calls, channel }
}

/** Answers like an echo server, one turn later. */
export const echoing = (call: MemoryCall, event: "start" | "message" | "halfClose"): void => {
  const streams = call.method.endsWith("Bidi")
  if (event === "message" && streams) call.message(call.sent.at(-1) as string)
  if (event !== "halfClose") return
  if (call.method.endsWith("ServerStream"))
    for (let index = 0; index < Number(call.sent[0]); index++) call.message(`${index}`)
  else if (!streams) call.message(call.sent.join(","))
  call.end(grpc.status.OK)
}
