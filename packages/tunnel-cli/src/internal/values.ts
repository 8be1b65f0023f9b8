/**
 * What a flag or an environment variable may say.
 *
 * **Invariants**
 * 1. A reader gives a value, or the words that complete "--flag takes …": what would have been right, with an example.
 * 2. Nothing is guessed: what is not meant exactly is a mistake.
 */
import * as Duration from "effect/Duration"

/** The words that complete "--flag takes …". */
export class Takes {
  readonly what: string
  constructor(what: string) {
    this.what = what
  }
}

export type Reader<A> = (text: string) => A | Takes

export interface Address {
  readonly host: string
  readonly port: number
  /** As gRPC takes it: `127.0.0.1:50051`, `[::1]:50051`. */
  readonly text: string
}

const hostAndPort = /^(\[[0-9a-fA-F:.]+\]|[^\s:/[\]]*):(\d{1,6})$/

const addressReader =
  (least: number, example: string): Reader<Address> =>
  (text) => {
    const [, host = "", digits = ""] = hostAndPort.exec(text) ?? []
    if (digits === "") return new Takes(`a host and a port, such as ${example}`)
    if (host === "") return new Takes(`a host before the port, such as ${example}`)
    const port = Number(digits)
    if (port < least || port > 65_535) return new Takes(`a port from ${least} to 65535, such as ${example}`)
    return { host, port, text: `${host}:${port}` }
  }

/** An address to connect to. */
export const address = (example: string): Reader<Address> => addressReader(1, example)

/** An address to listen on; port 0 takes a free one. */
export const listening = (example: string): Reader<Address> => addressReader(0, example)

/** An address to listen on, or `off`. */
export const listeningOrOff =
  (example: string): Reader<Address | "off"> =>
  (text) => {
    if (text === "off") return "off"
    const read = addressReader(0, example)(text)
    return read instanceof Takes ? new Takes(`${read.what}, or off`) : read
  }

const loopback = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/i

export const isLoopback = ({ host }: Address): boolean => loopback.test(host)

const keyPattern = /^[a-z0-9]([a-z0-9_.-]{0,62})$/

export const key: Reader<string> = (text) =>
  keyPattern.test(text)
    ? text
    : new Takes(
        "1 to 63 lower-case letters, digits, '-', '_' or '.', beginning with a letter or digit, such as home"
      )

export const keys: Reader<ReadonlyArray<string>> = (text) => {
  const read = text.split(",").map((part) => part.trim())
  return read.every((part) => keyPattern.test(part))
    ? read
    : new Takes("keys with commas between, such as home,office")
}

const units: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

export const duration: Reader<Duration.Duration> = (text) => {
  const [, amount, unit = ""] = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)$/.exec(text) ?? []
  if (amount === undefined) return new Takes("a time with its unit (ms, s, m or h), such as 20s")
  return Duration.millis(Number(amount) * (units[unit] as number))
}

export const count =
  (least: number, most: number): Reader<number> =>
  (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
    return value >= least && value <= most ? value : new Takes(`a whole number from ${least} to ${most}`)
  }

const scales: Readonly<Record<string, number>> = { "": 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }

export const size =
  (least: number, most: number): Reader<number> =>
  (text) => {
    const [, amount, unit = ""] = /^(\d{1,10})(KiB|MiB|GiB)?$/.exec(text) ?? []
    const bytes = Number(amount) * (scales[unit] as number)
    return bytes >= least && bytes <= most
      ? bytes
      : new Takes(`bytes from ${least} to ${most}, with KiB or MiB if you like, such as 4MiB`)
  }

export const choice =
  <const A extends string>(...all: ReadonlyArray<A>): Reader<A> =>
  (text) =>
    all.find((one) => one === text) ?? new Takes(`${all.slice(0, -1).join(", ")} or ${all.at(-1)}`)

/** Any text that is not empty. */
export const text =
  (what: string): Reader<string> =>
  (given) =>
    given === "" ? new Takes(what) : given

/** A switch, as an environment variable says it. */
export const toggle: Reader<boolean> = (text) =>
  /^(1|true|yes|on)$/i.test(text)
    ? true
    : /^(0|false|no|off)$/i.test(text)
      ? false
      : new Takes("true or false")
