/**
 * What the caller of a stream sent along, for as long as the stream is open.
 *
 * **Invariants**
 * 1. Whoever asks gets the same `Metadata` each time, and what they change in it stays.
 * 2. Metadata that nobody has asked for when the handler of a stream has begun is kept as its bytes, in one string: taken
 *    apart it is a dozen objects, and most handlers that need any read it when they begin.
 */
import { Metadata } from "@grpc/grpc-js"
import { metadataToWire } from "./metadata.ts"
import { metadataFromWire } from "./metadataFromWire.ts"

export class RequestMetadata {
  private held: Metadata | string
  private asked = false

  constructor(metadata: Metadata) {
    this.held = metadata
  }

  get whole(): Metadata {
    this.asked = true
    if (typeof this.held === "string") this.held = unpacked(this.held)
    return this.held
  }

  /** The first value of one key, for who looks at nothing else. */
  first(key: string): string | Buffer | undefined {
    const metadata = typeof this.held === "string" ? unpacked(this.held) : this.held
    return metadata.get(key)[0]
  }

  pack(): void {
    if (this.asked || typeof this.held === "string") return
    const bytes = metadataToWire(this.held, true)
    if (Buffer.isBuffer(bytes)) this.held = bytes.toString("latin1")
  }
}

const unpacked = (text: string): Metadata => {
  const metadata = metadataFromWire(Buffer.from(text, "latin1"))
  // It was metadata before it was packed.
  return metadata instanceof Metadata ? metadata : new Metadata()
}
