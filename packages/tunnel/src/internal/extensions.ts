/**
 * What two ends of this library say to each other beyond the protocol, and how they agree on it.
 *
 * Both ends name what they speak in one header of the outer call, `curfew-tunnel-extensions: drain, …`. What counts is
 * what both named; other peers never see anything of it. (Batches have a header of their own: they belong to the
 * carrier and change how bytes are framed before the first frame is read.)
 *
 * **Invariants**
 * 1. The network server answers with what both ends speak, so headers lost on the way to it cannot make the two
 *    disagree, and the client takes the answer's word for it.
 * 2. A name that is not known is no extension. Nothing here throws, whatever a peer's header says.
 * 3. Rule `agreed-only`: nothing of an extension is on the wire of a tunnel whose ends have not agreed on it.
 */
import type { Metadata } from "@grpc/grpc-js"

/** Names this end's extensions in the headers of the outer call, at both ends. */
export const extensionsKey = "curfew-tunnel-extensions"

/**
 * - `drain`: an end announces that it drains.
 * - `cancel-reason`: a cancel carries why.
 * - `binary-metadata`: the values of `-bin` keys are any bytes, not only UTF-8.
 * - `bulk`: windows grow, and a stream that has the writer to itself sends pieces that are longer than other peers'.
 */
export type Extension = "drain" | "cancel-reason" | "binary-metadata" | "bulk"

export type Extensions = ReadonlySet<Extension>

const known: ReadonlyArray<Extension> = ["drain", "cancel-reason", "binary-metadata", "bulk"]

/** What this end speaks. */
export const allExtensions: Extensions = new Set(known)

/** Puts the names into headers, or takes a user's own out where there is nothing to name. */
export const announceExtensions = (headers: Metadata, extensions: Extensions): void => {
  if (extensions.size === 0) headers.remove(extensionsKey)
  else headers.set(extensionsKey, [...extensions].join(", "))
}

/** What a peer's headers name and this end speaks. */
export const readExtensions = (headers: Metadata): Extensions => {
  const named = new Set<string>()
  for (const value of headers.get(extensionsKey)) {
    if (typeof value === "string") for (const name of value.split(",")) named.add(name.trim())
  }
  return new Set(known.filter((extension) => named.has(extension)))
}
