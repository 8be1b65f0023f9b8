/**
 * Many frames in one gRPC message, between two ends that both announced it in the outer call's headers.
 *
 * What a grpc-js call costs, it costs per message, so this decides how fast a busy tunnel is. Towards a peer that does
 * not announce it, one frame is one message, as the protocol has it.
 *
 * **Invariants**
 * 1. Rule `batch`: a batch is a run of frames, each behind its length in four bytes, big end first. Frames keep their
 *    order.
 * 2. Reading copies nothing, and bytes that are no batch are told apart from an empty one.
 */

/** Announces batches in the headers of the outer call, at both ends. */
export const batchKey = "curfew-tunnel-batch"

/** A batch stays at or below this, unless it is a single frame. */
export const batchLimit = 262_144

/**
 * What a carrier takes.
 *
 * - `frames`: each frame by itself.
 * - `batches`: each batch by itself.
 * - `messages`: the body of an HTTP/2 request, in which each frame is a gRPC message.
 * - `batches as messages`: the same, in which each batch is one.
 */
export type Framing = "frames" | "batches" | "messages" | "batches as messages"

const prefix = 4

/** Takes one frame: all the bytes, or a part of them. */
export type OnFrame = (bytes: Buffer, start?: number, end?: number) => void

/** Hands the frames of a batch out, as parts of it; false when the bytes end inside one. */
export const unpack = (batch: Buffer, onFrame: OnFrame): boolean => {
  let at = 0
  while (at < batch.length) {
    if (batch.length - at < prefix) return false
    const end = at + prefix + batch.readUInt32BE(at)
    if (end > batch.length) return false
    onFrame(batch, at + prefix, end)
    at = end
  }
  return true
}
