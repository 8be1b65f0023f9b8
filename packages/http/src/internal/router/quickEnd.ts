/**
 * The end of a request whose handler's fiber tells its edge.
 *
 * Invariants
 * 1. The handler has a `Scope` of its own, which closes with it where it was interrupted, and otherwise with that of the
 *    request: an answer keeps it open until it is out.
 * 2. Where somebody is given the record, the first thing registered with the request's scope makes it. Elsewhere there is
 *    a finalizer only for a handler that has left something in its scope; all others end, counted, with their answer,
 *    which is asked for when the turn is over, and listened for by those that outlive it.
 */
import type { RequestContext } from "@curfew/request"
import { reportUnhandled } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Scope from "effect/Scope"
import { seriesOf } from "../counting.ts"
import { afterTurn, type Turned } from "../turn.ts"
import { release } from "./places.ts"
import type { Quick } from "./quickly.ts"
import { QuickState } from "./quickState.ts"
import { over, type Served, tellRecord } from "./requests.ts"

export abstract class QuickEnd extends QuickState implements Turned {
  /** The handler's. Under `detach` the call has one of its own. */
  protected readonly scope: Scope.Closeable | undefined
  /** A finalizer of the request's scope ends it. */
  protected finalized = false
  /** Its answer has been given to the server, or nobody waits for it any more. */
  #answered = false
  /** It is looked at when the turn is over. */
  #due = false

  constructor(
    served: Served,
    id: string,
    fiber: Fiber.Fiber<unknown, unknown>,
    request: HttpServerRequest.HttpServerRequest,
    quick: Quick
  ) {
    super(served, id, fiber, request, quick)
    this.scope = quick.policy === "detach" ? undefined : Scope.makeUnsafe()
  }

  /** Its handler has ended, or been left. */
  protected abstract readonly handled: boolean

  /** The end of the request's scope makes its record, and closes the handler's own before that. */
  protected finalize(): Effect.Effect<void> {
    this.finalized = true
    const requestScope = Context.getUnsafe(this.outside as Context.Context<Scope.Scope>, Scope.Scope)
    return Scope.addFinalizerExit(requestScope, (exit) => {
      const ended = over(this.exchange, this.state)
      const { scope } = this
      return scope === undefined || scope.state._tag === "Empty"
        ? ended
        : Effect.ensuring(
            // The server, which closes the request's scope, tells nobody.
            Effect.catchCause(Scope.close(scope, exit), (cause) =>
              reportUnhandled("cleanup", this.exchange.route, cause)
            ),
            ended
          )
    })
  }

  /** From here on the end of the response is that of the request. */
  protected gone(): void {
    if (this.#answered || this.finalized) return
    this.#answered = true
    // Written now, it is out with this turn or is listened for from then on.
    this.atTurn()
  }

  protected atTurn(): void {
    if (this.#due) return
    this.#due = true
    afterTurn(this)
  }

  turned(): void {
    this.#due = false
    if (this.ended) return
    const { client } = this
    if (this.#answered && client.complete) {
      this.#finish()
      return
    }
    this.exchange.begin()
    const { onOver } = client.watch
    if (!this.handled && this.row === undefined && this.limit !== Number.POSITIVE_INFINITY)
      this.served.deadlines.enter(this)
    if (this.#answered) onOver(() => this.#finish())
  }

  #finish(): void {
    if (this.ended) return
    const { client } = this
    // Of what was not watched nobody else has noted it.
    if (client.complete) client.peer.completeUnsafe()
    client.unwatch()
    const ending = this.state.finishUnsafe()
    // Without a receiver of its record a request has nothing to run at its end.
    if (ending !== undefined) Child.startUnsafe(this.outside, ending)
    // Somebody holds it beyond its answer.
    if (!this.ended) this.exchange.begin()
  }

  /** Told by the request, when it has ended and nobody holds it: the end of one that nobody is given the record of. */
  onEnded(outlived: ReadonlySet<string> | undefined): void {
    this.ended = true
    if (this.onEnd !== undefined) return
    release(this.quick.source, this)
    const { asked, client } = this
    const { complete, response, transport } = client
    if (this.sent !== undefined && complete && outlived === undefined && !client.hasLeft()) {
      if (asked === undefined) {
        seriesOf(this.name, transport).quick(response.statusCode, this.served.context)
        return
      }
      if (!asked.abandoned) {
        asked.endQuickly(response.statusCode)
        return
      }
    }
    this.exchange.end({
      id: this.id,
      name: this.name,
      startedAt: 0,
      finishedAfter: Duration.zero,
      endedAfter: Duration.zero,
      leases: 1,
      outlived: [...(outlived ?? [])]
    })
  }

  protected recorded(base: RequestContext.RequestRecord): Effect.Effect<unknown> {
    this.ended = true
    release(this.quick.source, this)
    return tellRecord(this.served.options, this.exchange, base)
  }
}
