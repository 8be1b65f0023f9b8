/**
 * Many frames in one gRPC message, between two ends that both announced it in the outer call's headers.
 *
 * What a grpc-js call costs, it costs per message, so this decides how fast a busy tunnel is. Towards a peer that does
 * not announce it, one frame is one message, as the protocol has it.
 *
 * **Invariants**
 * 1. Rule `batch`: a batch is a run of frames, each behind its length in four bytes, big end first. Frames keep their
 *    order.
 * 2. A batch stays below `batchLimit` unless it is a single frame, so a receiver's limit on messages is not passed.
 * 3. Reading copies nothing, and bytes that are no batch are told apart from an empty one.
 */

/** Announces batches in the headers of the outer call, at both ends. */
export const batchKey = "curfew-tunnel-batch"

const batchLimit = 262_144
const prefix = 4

/** Packs frames into as few batches as the limit allows. */
export const pack = (frames: ReadonlyArray<Buffer>): ReadonlyArray<Buffer> => {
  const batches: Array<Buffer> = []
  let start = 0
  while (start < frames.length) {
    let size = 0
    let end = start
    while (end < frames.length) {
      const next = size + prefix + (frames[end] as Buffer).length
      if (end > start && next > batchLimit) break
      size = next
      end++
    }
    const batch = Buffer.allocUnsafe(size)
    let at = 0
    for (; start < end; start++) {
      const frame = frames[start] as Buffer
      batch.writeUInt32BE(frame.length, at)
      batch.set(frame, at + prefix)
      at += prefix + frame.length
    }
    batches.push(batch)
  }
  return batches
}

/** Hands the frames of a batch out; false when the bytes end inside one. */
export const unpack = (batch: Buffer, onFrame: (frame: Buffer) => void): boolean => {
  let at = 0
  while (at < batch.length) {
    if (batch.length - at < prefix) return false
    const end = at + prefix + batch.readUInt32BE(at)
    if (end > batch.length) return false
    onFrame(batch.subarray(at + prefix, end))
    at = end
  }
  return true
}
