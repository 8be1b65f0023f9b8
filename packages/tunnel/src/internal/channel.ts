/**
 * grpc-js' `Channel` in front of tunnels: what a stub takes as `channelOverride`.
 *
 * **Invariants**
 * 1. Closing a stub does not close a tunnel: the tunnel belongs to a scope, and many stubs may share it.
 * 2. `createCall` never throws. A call that cannot be made gets `UNAVAILABLE` as its status, in a later turn.
 * 3. Only a parent call of this library passes its cancellation on: grpc-js' own call objects say `cancelled` after
 *    a success too, and a child must not die of its parent's success.
 */
import { CancelReason } from "@curfew/reason"
import {
  type ChannelInterface,
  status as Code,
  connectivityState,
  credentials,
  type experimental,
  type Metadata,
  propagate,
  type ServerUnaryCall,
  type ServiceDefinition
} from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { CallToPlace } from "../Picking.ts"
import type { ClientConstructor } from "../TunnelChannel.ts"
import { afterTurn } from "./bridge.ts"
import { infoOf } from "./callInfo.ts"
import { ClientCall } from "./clientCall.ts"
import type { ClientEngine } from "./clientEngine.ts"
import { MovableCall, type PlacedCall } from "./movableCall.ts"
import { makeStatus } from "./rpcStatus.ts"
import { cancelWithReason, type Outgoing } from "./stubCall.ts"
import { deadlineMillis } from "./timeout.ts"
import type { WaitSource } from "./waiting.ts"
import { pickerThrew, WaitingCall } from "./waitingCall.ts"

type Call = experimental.CallStream
type Listener = Parameters<Call["start"]>[1]
type Parent = ServerUnaryCall<unknown, unknown>

/** Where a channel gets its tunnel from. */
export interface Source {
  readonly target: string
  /** The engine for the next call, if there is one. A function of the user's may throw in it. */
  readonly pick: (call: CallToPlace) => ClientEngine | undefined
  /** Whether there is an engine for a call now; asking takes nobody's turn. */
  readonly ready: () => boolean
  /** What a call is told for which there is no tunnel. */
  readonly refusal: () => Refusal
  /** There are several tunnels: a call that one of them turns away because it drains goes to another. */
  readonly moves?: boolean
  /** How calls wait for a tunnel. Without it they do not. */
  readonly waits?: WaitSource
  /** There will never be a tunnel again. */
  readonly over: () => boolean
  /** Runs work that waits for readiness, for as long as the source lives. */
  readonly note: (work: Effect.Effect<unknown>, name: string) => unknown
  /** Completes when readiness may have changed. */
  readonly changed: Effect.Effect<unknown>
}

/** A status that a call gets which is not placed. */
export type Refusal = readonly [code: number, details: string]

export const noTunnel: Refusal = [Code.UNAVAILABLE, "No tunnel is open"]
export const allFull: Refusal = [Code.RESOURCE_EXHAUSTED, "Every tunnel has as many streams as it may"]

/** A call for which there is no tunnel. */
class RefusedCall implements Call {
  private readonly target: string
  private readonly refusal: Refusal
  private listener: Listener | undefined

  constructor(target: string, refusal: Refusal) {
    this.target = target
    this.refusal = refusal
  }

  start(_metadata: Metadata, listener: Listener): void {
    this.listener = listener
    afterTurn(() => this.finish(...this.refusal))
  }

  private finish(code: number, details: string): void {
    const { listener } = this
    this.listener = undefined
    listener?.onReceiveStatus(makeStatus(code, details))
  }

  sendMessageWithContext(context: { callback?: () => void }): void {
    afterTurn(() => context.callback?.())
  }

  cancelWithStatus(code: number, details: string): void {
    afterTurn(() => this.finish(code, details))
  }

  startRead(): void {}
  halfClose(): void {}
  setCredentials(): void {}

  getPeer(): string {
    return this.target
  }

  getCallNumber(): number {
    return 0
  }

  getAuthContext(): null {
    return null
  }
}

let calls = 0

const effectiveDeadline = (own: number, parent: Parent | null, flags: number): number =>
  parent !== null && (flags & propagate.DEADLINE) !== 0
    ? Math.min(own, deadlineMillis(parent.getDeadline()))
    : own

const followParent = (call: PlacedCall | WaitingCall, parent: Parent | null, flags: number): void => {
  if (parent === null || (flags & propagate.CANCELLATION) === 0 || infoOf(parent) === undefined) return
  const follow = () => {
    const details = "The parent call was cancelled"
    const reason = infoOf(parent)?.reason ?? CancelReason.Requested({ message: details })
    call[cancelWithReason](Code.CANCELLED, details, reason)
  }
  if (parent.cancelled) {
    follow()
    return
  }
  parent.once("cancelled", follow)
  call.onOver = () => parent.removeListener("cancelled", follow)
}

export class TunnelGrpcChannel implements ChannelInterface {
  private readonly source: Source
  private readonly oneAnswer = new Set<string>()

  constructor(source: Source) {
    this.source = source
  }

  /**
   * A stub over this channel. Takes the methods with one answer from its constructor: grpc-js does not tell a channel,
   * and a stub that waits for one answer never asks for a second, so that a peer which sends two would leave its call
   * open for ever.
   */
  stub<C>(Client: ClientConstructor<C>): C {
    const { service = {} } = Client as { readonly service?: ServiceDefinition }
    for (const { path, responseStream } of Object.values(service))
      if (!responseStream) this.oneAnswer.add(path)
    return new Client(this.source.target, credentials.createInsecure(), { channelOverride: this })
  }

  /** Leaves the tunnel open: it belongs to its scope. */
  close(): void {}

  getTarget(): string {
    return this.source.target
  }

  getConnectivityState(): connectivityState {
    if (this.source.ready()) return connectivityState.READY
    return this.source.over() ? connectivityState.SHUTDOWN : connectivityState.TRANSIENT_FAILURE
  }

  watchConnectivityState(
    current: connectivityState,
    deadline: Date | number,
    callback: (error?: Error) => void
  ): void {
    const state = this.getConnectivityState()
    const shutDown = () => afterTurn(() => callback(new Error("The channel has been closed")))
    if (state !== current) {
      afterTurn(callback)
      return
    }
    if (state === connectivityState.SHUTDOWN) {
      shutDown()
      return
    }
    const { changed, note } = this.source
    const wait = Effect.suspend(() => (this.getConnectivityState() === current ? changed : Effect.void)).pipe(
      Effect.repeat({ while: () => this.getConnectivityState() === current })
    )
    const limited = Effect.clockWith((clock) => {
      const remaining = deadlineMillis(deadline) - clock.currentTimeMillisUnsafe()
      return Effect.timeoutOption(wait, Math.max(0, remaining))
    })
    const outcome = Effect.map(limited, (changed) =>
      afterTurn(() =>
        changed._tag === "Some"
          ? callback()
          : callback(new Error("Deadline passed without connectivity state change"))
      )
    )
    note(
      Effect.onInterrupt(outcome, () => Effect.sync(shutDown)),
      "connectivity watch"
    )
  }

  getChannelzRef(): ReturnType<ChannelInterface["getChannelzRef"]> {
    // grpc-js types the kind by an enum that it does not export; its values are these strings.
    return { kind: "channel", id: 0, name: this.source.target } as unknown as ReturnType<
      ChannelInterface["getChannelzRef"]
    >
  }

  createCall(
    method: string,
    deadline: Date | number,
    host: string | null | undefined,
    parent: unknown,
    propagateFlags: number | null | undefined
  ): Call {
    const { source } = this
    const parentCall = (parent ?? null) as Parent | null
    const flags = propagateFlags ?? propagate.DEFAULTS
    const outgoing = {
      number: ++calls,
      method,
      oneAnswer: this.oneAnswer.has(method),
      host: host ?? source.target,
      deadline: effectiveDeadline(deadlineMillis(deadline), parentCall, flags)
    }
    let call: PlacedCall | WaitingCall | undefined
    try {
      call = this.place(outgoing)
    } catch (error) {
      return new RefusedCall(source.target, pickerThrew(error))
    }
    if (call === undefined) return new RefusedCall(source.target, source.refusal())
    followParent(call, parentCall, flags)
    return call
  }

  private over(engine: ClientEngine, outgoing: Outgoing): PlacedCall {
    const call = new ClientCall(engine, outgoing)
    return this.source.moves === true ? new MovableCall(call, () => this.again(outgoing)) : call
  }

  /** The call over another tunnel; a function of the user's that throws finds none. */
  private again(outgoing: Outgoing): ClientCall | undefined {
    try {
      const engine = this.source.pick(outgoing)
      return engine && new ClientCall(engine, outgoing)
    } catch {
      return undefined
    }
  }

  private place(outgoing: Outgoing): PlacedCall | WaitingCall | undefined {
    const { source } = this
    const { waits } = source
    const engine = source.pick(outgoing)
    if (engine !== undefined) return this.over(engine, outgoing)
    if (waits === undefined || source.over()) return undefined
    return new WaitingCall({
      target: source.target,
      outgoing,
      limit: waits.limit,
      note: source.note,
      place: (placed, failed) => waits.place(outgoing, (found) => placed(this.over(found, outgoing)), failed)
    })
  }
}
