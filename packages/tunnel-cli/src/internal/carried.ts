/**
 * Metadata and statuses on their way from one connection to another.
 *
 * **Invariants**
 * 1. What comes out can be sent: grpc-js hands illegal trailers to Node inside an event of the connection, where the
 *    exception ends the process, and Node breaks off a whole connection at a block that is too large.
 * 2. What belongs to one connection stays there: encodings, lengths, the time-out, which goes on as a deadline.
 * 3. Everything else keeps its order, its values and its bytes.
 */
import { fieldLength, ofTransport, singleValued } from "@curfew/grpc/HeaderFields"
import { Metadata } from "@grpc/grpc-js"

/** What each connection says for itself. */
const ofTheConnection = (key: string): boolean => ofTransport.has(key) || key === "date"

/** Below Node's 65,536 for a block, with room for what the transport adds. */
const largest = 60_000

/** What a status may say in any case, in bytes as they are sent. */
const leastSaid = 4_000

/** What trailers and the text of a status may take together. */
const largestStatus = largest + leastSaid

/** The letters that grpc-js sends as they are; of every other one it sends each byte as three. */
const bare = /^[\w;,/?:@&=+$\-.!~*'()#]$/

/** As much of a text as a status with this metadata may say. It is cut between letters, and says that it was. */
export const sayable = (text: string, metadata: Metadata = new Metadata()): string => {
  // Most texts are so short that nothing has to be counted: a unit of a string is sent as nine bytes at most.
  if (text.length * 9 <= leastSaid) return text
  let room = largestStatus
  for (const [key, values] of Object.entries(metadata.toJSON()))
    for (const value of values) room -= fieldLength(key, value)
  let end = 0
  for (const letter of text) {
    room -= bare.test(letter) ? 1 : 3 * Buffer.byteLength(letter)
    if (room < 0) return `${text.slice(0, end)}…`
    end += letter.length
  }
  return text
}

/** A copy for the next connection; `undefined` when it is larger than a connection need carry. */
export const carried = (metadata: Metadata): Metadata | undefined => {
  const copy = new Metadata()
  let size = 0
  for (const [key, values] of Object.entries(metadata.toJSON())) {
    if (key.startsWith(":") || ofTheConnection(key)) continue
    for (const value of singleValued.has(key) ? values.slice(0, 1) : values) {
      size += fieldLength(key, value)
      copy.add(key, value)
    }
  }
  return size > largest ? undefined : copy
}
