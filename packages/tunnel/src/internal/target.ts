/**
 * The addresses that a tunnel's own connection dials, as gRPC writes them.
 *
 * **Invariants**
 * 1. What is not understood gives `undefined`: nobody is dialled by a guess.
 */

export interface Target {
  /** What is dialled. */
  readonly to: { readonly host: string; readonly port: number } | { readonly path: string }
  /** What the server is told that it was dialled as. */
  readonly authority: string
}

const unix = /^unix:(?:\/\/(?=\/))?(.+)$/
const named = /^(?:dns:(?:\/\/[^/]*\/)?|ipv4:|ipv6:)?(\[[0-9a-fA-F:.%]+\]|[^:/[\]]+)(?::(\d{1,5}))?$/

/** Where no port is named. */
const defaultPort = 443

export const targetOf = (address: string): Target | undefined => {
  const [, path] = unix.exec(address) ?? []
  if (path !== undefined) return { to: { path }, authority: "localhost" }
  const [, name, digits] = named.exec(address) ?? []
  if (name === undefined) return undefined
  const port = digits === undefined ? defaultPort : Number(digits)
  if (port > 65_535) return undefined
  const host = name.startsWith("[") ? name.slice(1, -1) : name
  return { to: { host, port }, authority: `${name}${digits === undefined ? "" : `:${port}`}` }
}
