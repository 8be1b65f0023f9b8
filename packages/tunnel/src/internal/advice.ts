/**
 * What to do about a tunnel that could not be opened, from what grpc-js, Node and OpenSSL say about it.
 *
 * **Invariants**
 * 1. The sentences stand beside what was said and never replace it: they are guesses from texts that others write.
 */

const table: ReadonlyArray<readonly [said: RegExp, advice: string]> = [
  [
    /unable to verify|self.signed certificate|unable to get (local )?issuer/i,
    "The server's certificate is not signed by an authority that this end trusts: give that authority's certificate to credentials.createSsl"
  ],
  [
    /ALTNAME_INVALID|does not match certificate/i,
    "The server's certificate is for another name: dial the name that it is for, or set grpc.ssl_target_name_override"
  ],
  [/certificate has expired/i, "The server's certificate has expired: have it renewed"],
  [
    /wrong version number|packet length too long/i,
    "The server does not speak TLS on this port: dial the port that does, or use credentials.createInsecure"
  ],
  [
    /alert (certificate required|bad certificate|unknown ca|handshake failure|certificate unknown)/i,
    "The server wants a client's certificate that it trusts: give one with its key to credentials.createSsl"
  ],
  [/ECONNREFUSED/, "Nothing listens there: see that the server runs, and on which port"],
  [/Name resolution failed|ENOTFOUND|EAI_AGAIN/, "The name is not known: check the address"],
  [
    /Failed to connect|ECONNRESET|socket hang up/,
    "The server broke the connection off: it may want TLS, or a client's certificate that it trusts"
  ],
  [
    /no response headers/,
    "See that the server is reached, and that nothing on the way keeps responses back until they are complete"
  ],
  [
    /does not implement/,
    "The server has no tunnel service: see that one was added to it, and that this is its port"
  ]
]

export const adviceOn = (details: string): string | undefined =>
  table.find(([said]) => said.test(details))?.[1]

/** What was said, on one line and without grpc-js' empty notes. */
export const oneLine = (details: string): string =>
  details
    .replace(/\s*Resolution note:\s*(null)?\s*/g, "")
    .replace(/\s*\n\s*/g, " ")
    .replace(/\.$/, "")
    .trim()
