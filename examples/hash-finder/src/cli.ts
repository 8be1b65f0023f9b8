/** The flags of both programs. */
import { number, text, toggle } from "./flags.ts"

export const serverAbout = `Finds secrets whose hash comes close to a name. Ctrl-C lets the calls that run end, a second one cancels them.

  npm run -w @curfew/example-hash-finder server -- [flags]`

export const serverFlags = {
  port: number(50051, 0, 65_535, "where to listen on 127.0.0.1; 0 takes a free port"),
  workers: number(0, 0, 64, "worker threads that search; 0 searches in the server's own thread"),
  limit: number(1_000_000_000, 1, 1_000_000_000_000, "hashes of one call, after which the server cancels it"),
  drain: number(20, 0, 3_600, "seconds that calls may run on after the first Ctrl-C")
}

export const clientAbout = `Asks a server for secrets whose hash comes close to a name. Ctrl-C cancels the call.

  npm run -w @curfew/example-hash-finder client -- [flags]`

const address = /^[^\s:]+:\d{1,5}$/

export const clientFlags = {
  server: text("127.0.0.1:50051", address, "an address such as 127.0.0.1:50051", "where the server listens"),
  name: text(
    "curfew",
    /^./s,
    "a name such as curfew",
    "what the hash has to look like; long names take for ever"
  ),
  ideal: number(0, 0, 43, "letters that may differ in the secret that ends the search"),
  stream: toggle("ask for each interesting secret on the way, too"),
  interesting: number(1, 0, 43, "letters that may differ in those; at least as many as with --ideal")
}
