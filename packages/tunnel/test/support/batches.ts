/** Frames as a carrier gets them. */
import type { Framing } from "../../src/internal/batch.ts"
import { Encoder } from "../../src/internal/encode.ts"
import type { ClientFrame, ServerFrame } from "../../src/internal/frame.ts"

export const encoded = (
  frames: ReadonlyArray<ClientFrame | ServerFrame>,
  framing: Framing,
  { capacity = 4096, lent = false } = {}
): ReadonlyArray<Buffer> => {
  const encoder = new Encoder(capacity, framing)
  for (const frame of frames) {
    if (frame._tag === "Message") encoder.data(frame.id, frame.size, frame.data, lent)
    else if (frame._tag === "MoreData") encoder.data(frame.id, -1, frame.data, lent)
    else encoder.frame(frame)
  }
  return encoder.take()
}
