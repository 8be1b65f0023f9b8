/**
 * A `grpc.Server` that has a handler for every method.
 *
 * grpc-js looks a path up in the map that `Server.register` fills, and has no public way to answer for a path that is not
 * there. So the map is replaced by one that registers a path when it is asked for, by `register` itself, and forgets it
 * again. docs/decisions/0018-tunnel-program.md says what else was looked at.
 *
 * **Invariants**
 * 1. Of grpc-js' own only the field `handlers` is used, as a map that is asked with `get`; a server without it is
 *    refused at the start, and test/catchAll.test.ts says so when a new grpc-js behaves otherwise.
 * 2. The map does not grow with the paths that callers think of.
 * 3. Methods that were registered by name are found first.
 */
import type { Server, ServerDuplexStream } from "@grpc/grpc-js"

type Call = ServerDuplexStream<Buffer, Buffer>
type Handlers = Map<string, unknown>

const identity = (bytes: Buffer): Buffer => bytes

class CatchAll extends Map<string, unknown> {
  readonly #server: Server
  readonly #handler: (call: Call) => void

  constructor(server: Server, known: Handlers, handler: (call: Call) => void) {
    super(known)
    this.#server = server
    this.#handler = handler
  }

  override get(path: string): unknown {
    const known = super.get(path)
    if (known !== undefined) return known
    const handler = this.#handler as Parameters<Server["register"]>[1]
    this.#server.register(path, handler, identity as (value: unknown) => Buffer, identity, "bidi")
    const registered = super.get(path)
    this.#server.unregister(path)
    return registered
  }
}

/** Gives every call that no registered method takes to the handler, as bytes with both sides streaming. */
export const catchAll = (server: Server, handler: (call: Call) => void): void => {
  const inside = server as unknown as { handlers: unknown }
  const { handlers } = inside
  if (!(handlers instanceof Map)) {
    throw new Error("This version of @grpc/grpc-js cannot serve methods without their names: use 1.14.")
  }
  inside.handlers = new CatchAll(server, handlers, handler)
}
