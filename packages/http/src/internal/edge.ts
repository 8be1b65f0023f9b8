/**
 * What all requests of one server share.
 *
 * Invariants
 * 1. Each request is a task of the owner that the edge was made under, and stands in the table until its record is out.
 * 2. A request starts in the turn in which node emits it, so that nothing that node tells about it is missed.
 */
import { tellCancels } from "@curfew/reason"
import { type Handler, type OnDisconnect, policyOf } from "@curfew/request"
import { Owner, TaskScope } from "@curfew/scope"
import { countUnsafe } from "@curfew/scope/Argument"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { EdgeOptions, HandlerOptions } from "../EdgeOptions.ts"
import { bodyTooLarge } from "./answers.ts"
import { Call, type Hooks } from "./call.ts"
import { type Series, seriesOf } from "./counting.ts"
import { Deadlines } from "./deadlines.ts"
import { promiseHandler } from "./handling.ts"
import { NodeLight, type Plain } from "./lightNode.ts"
import { type Resolved, resolve } from "./options.ts"
import { type NodeRequest, type NodeResponse, type Watched, watchPeer } from "./peer.ts"
import { nodePort, type Port } from "./port.ts"
import { Table } from "./table.ts"

type Spawn = Effect.Success<ReturnType<typeof TaskScope.makeRuntime<never>>>

export class Edge {
  readonly name: string
  readonly options: EdgeOptions
  readonly requests: number
  readonly context: Context.Context<Owner>
  readonly spawn: Spawn
  readonly table = new Table()
  readonly owner: TaskScope.TaskScope
  readonly clock: Clock.Clock
  readonly deadlines: Deadlines
  /** Whether somebody is given the records: otherwise nobody asks when a request came. */
  readonly records: boolean

  private constructor(options: EdgeOptions, context: Context.Context<Owner>, spawn: Spawn) {
    this.options = options
    this.owner = Context.get(context, Owner)
    this.clock = Context.get(context, Clock.Clock)
    this.deadlines = new Deadlines(context as Context.Context<never>)
    this.records = options.onRecord !== undefined
    this.name = options.name ?? "http"
    this.requests = countUnsafe("requests", options.requests ?? 10_000, 0)
    this.context = context
    this.spawn = spawn
    // What means nothing is refused here, and not with the first request.
    resolve(undefined, options)
  }

  static make(options: EdgeOptions): Effect.Effect<Edge, never, Owner> {
    return Effect.gen(function* () {
      // A server counts its cancels, also where a bundler left out what nobody mentions.
      tellCancels()
      const context = yield* Effect.context<Owner>()
      const spawn = yield* TaskScope.makeRuntime(yield* Owner)
      return new Edge(options, context, spawn)
    })
  }

  /** The options of a handler, with its mark. */
  specify(handler: Handler | undefined, options: HandlerOptions | undefined): Spec {
    const mark = handler === undefined ? undefined : policyOf(handler)
    return new Spec(resolve(options, this.options), options?.policy ?? mark ?? this.options.policy)
  }

  /** Starts a handler for what a port stands for. */
  start(port: Port, spec: Spec, handler: Effect.Effect<unknown, unknown>, hooks?: Hooks): Call {
    const { options, policy } = spec
    const call = new Call(this, { port, options, policy, handler, hooks })
    call.begin()
    return call
  }

  /** Starts a plain handler for a request of node. */
  startPlain<A, B, C>(plain: Plain<A, B, C>): void {
    if (NodeLight.start(this, plain)) return
    const { first, request, response, route, second, third } = plain
    const { handle, name, spec } = route
    this.startNode(request, response, spec, (port) => ({
      handler: promiseHandler(port, response, name, (exchange) => handle(first, second, exchange)),
      hooks: route.hooks?.(first, second, third)
    }))
  }

  /** The same for a request of node. */
  startNode(
    request: NodeRequest,
    response: NodeResponse,
    spec: Spec,
    make: (port: Port) => {
      readonly handler: Effect.Effect<unknown, unknown>
      readonly hooks?: Hooks | undefined
    }
  ): Call {
    const { body, bodyBytes, halfClose } = spec.options
    let watched: Watched | undefined
    const tooLarge = (): void => {
      watched?.peer.stopUnsafe(bodyTooLarge(bodyBytes))
    }
    watched = watchPeer(request, response, { body, bodyBytes, halfClose, onTooLarge: tooLarge })
    if (watched.body.tooLarge) tooLarge()
    const port = nodePort(request, response, watched)
    const { handler, hooks } = make(port)
    return this.start(port, spec, handler, hooks)
  }
}

/** What holds for one handler. */
export class Spec {
  readonly options: Resolved
  readonly policy: OnDisconnect | undefined
  /** Nothing is said of it that has to go on beside it from its start. */
  readonly light: boolean
  readonly #http1 = new Map<string, Series>()
  readonly #http2 = new Map<string, Series>()

  constructor(options: Resolved, policy: OnDisconnect | undefined) {
    this.options = options
    this.policy = policy
    this.light = options.heartbeat === undefined
  }

  /** What is counted of its requests. */
  seriesOf(method: string, transport: "http1" | "http2"): Series {
    const known = transport === "http1" ? this.#http1 : this.#http2
    let series = known.get(method)
    if (series === undefined) {
      const { route } = this.options
      series = seriesOf(route === undefined ? method : `${method} ${route}`, transport)
      known.set(method, series)
    }
    return series
  }
}
