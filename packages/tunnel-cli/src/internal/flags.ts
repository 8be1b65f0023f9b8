/**
 * The one schema of the command line: each flag with its environment variable, default, reader and sentence.
 *
 * **Invariants**
 * 1. A flag is described once; parsing, the environment and `--help` read it from here.
 * 2. The variable of `--some-flag` is `CURFEW_TUNNEL_SOME_FLAG`; a flag wins over it, and it over the default.
 * 3. A default passes its own reader.
 */
import {
  address,
  choice,
  count,
  duration,
  key,
  keys,
  listening,
  listeningOrOff,
  type Reader,
  size,
  text,
  toggle
} from "./values.ts"

export interface Flag<A> {
  readonly name: string
  /** What stands for the value in the help; none for a switch. */
  readonly value: string | undefined
  readonly about: string
  readonly read: Reader<A>
  /** As it would be written. */
  readonly usual: string | undefined
  /** Without it the command cannot do anything: what to write, for the sentence that asks for it. */
  readonly needed: string | undefined
  /** Stands on the command line for all to see; the variable is better. */
  readonly secret?: boolean
}

type Flags = Readonly<Record<string, Flag<unknown>>>

/** The values of a command's flags, by the names in its table. */
type Values<F extends Flags> = { readonly [K in keyof F]: F[K] extends Flag<infer A> ? A : never }

export const variableOf = ({ name }: { readonly name: string }): string =>
  `CURFEW_TUNNEL_${name.toUpperCase().replaceAll("-", "_")}`

const needed = <A>(
  name: string,
  value: string,
  about: string,
  read: Reader<A>,
  example: string
): Flag<A> => ({
  name,
  value,
  about,
  read,
  usual: undefined,
  needed: example
})

const usual = <A>(name: string, value: string, about: string, read: Reader<A>, usually: string): Flag<A> => ({
  name,
  value,
  about,
  read,
  usual: usually,
  needed: undefined
})

const optional = <A>(name: string, value: string, about: string, read: Reader<A>): Flag<A | undefined> => ({
  name,
  value,
  about,
  read,
  usual: undefined,
  needed: undefined
})

const on = (name: string, about: string): Flag<boolean> => ({
  name,
  value: undefined,
  about,
  read: toggle,
  usual: undefined,
  needed: undefined
})

const file = text("the path of a file")

const tokenOf = (about: string): Flag<string | undefined> => ({
  ...optional("token", "secret", about, text("a secret that is not empty")),
  secret: true
})

const insecure = (about: string): Flag<boolean> => on("insecure", about)

/** What every command that stays up has. */
const running = (admin: string) => ({
  admin: usual(
    "admin",
    "host:port|off",
    "where status, /metrics, /healthz and /readyz are answered over HTTP",
    listeningOrOff("127.0.0.1:7400"),
    admin
  ),
  maxMessage: usual(
    "max-message",
    "bytes",
    "the largest message that is carried",
    size(1, 2 ** 31 - 1),
    "4MiB"
  ),
  maxStreams: usual(
    "max-streams",
    "number",
    "the most calls at a time in one tunnel; the lower one of its two ends counts",
    count(1, 1_000_000),
    "1024"
  ),
  drain: usual(
    "drain",
    "time",
    "how long calls may end by themselves after the first SIGTERM",
    duration,
    "20s"
  ),
  force: usual("force", "time", "how long cancelled calls may clean up after that", duration, "8s"),
  logFormat: usual(
    "log-format",
    "format",
    "how log lines look on the error output",
    choice("text", "json"),
    "text"
  ),
  logLevel: usual(
    "log-level",
    "level",
    "the least important lines to print; debug has a line for each call",
    choice("debug", "info", "warn", "error"),
    "info"
  )
})

/** How a command that dials the gateway secures the connection. */
const dialling = {
  tls: on("tls", "connect to the gateway by TLS"),
  tlsCa: optional(
    "tls-ca",
    "file",
    "certificates that the gateway's has to be signed by (PEM); implies --tls",
    file
  ),
  tlsCert: optional(
    "tls-cert",
    "file",
    "this end's own certificate (PEM), for a gateway that asks for one",
    file
  ),
  tlsKey: optional("tls-key", "file", "the private key of --tls-cert (PEM)", file),
  token: tokenOf("the secret that the gateway asks for"),
  insecure: insecure("connect in plain text to a gateway on another machine"),
  tunnels: usual(
    "tunnels",
    "number",
    "tunnels that are kept open, each over its own connection",
    count(1, 64),
    "1"
  )
}

const backend = {
  backendTls: on("backend-tls", "connect to the backend by TLS"),
  backendCa: optional(
    "backend-ca",
    "file",
    "certificates that the backend's has to be signed by (PEM); implies --backend-tls",
    file
  )
}

const gateway = {
  listen: needed(
    "listen",
    "host:port",
    "where agents dial in",
    listening("127.0.0.1:7000"),
    "--listen 127.0.0.1:7000"
  ),
  expose: needed(
    "expose",
    "host:port",
    "where gRPC clients call what the agents serve",
    listening("127.0.0.1:8080"),
    "--expose 127.0.0.1:8080"
  ),
  pick: usual(
    "pick",
    "how",
    "which of several agents with one key gets a call",
    choice("round-robin", "least-loaded"),
    "round-robin"
  ),
  wait: usual("wait", "time", "how long a call waits for an agent while none is connected", duration, "0s"),
  defaultKey: optional("default-key", "key", "the agent of calls that name none", key),
  allowKeys: optional(
    "allow-keys",
    "key,key",
    "the keys that agents may take; all when it is not given",
    keys
  ),
  forward: optional(
    "forward",
    "host:port",
    "a backend that `curfew-tunnel connect` reaches through this gateway",
    address("127.0.0.1:50051")
  ),
  ...backend,
  token: tokenOf("the secret that agents and connects have to know"),
  tlsCert: optional("tls-cert", "file", "certificate of the --listen port (PEM)", file),
  tlsKey: optional("tls-key", "file", "its private key (PEM)", file),
  tlsCa: optional(
    "tls-ca",
    "file",
    "who opens a tunnel needs a certificate signed by one of these (PEM)",
    file
  ),
  exposeTlsCert: optional("expose-tls-cert", "file", "certificate of the --expose port (PEM)", file),
  exposeTlsKey: optional("expose-tls-key", "file", "its private key (PEM)", file),
  exposeTlsCa: optional(
    "expose-tls-ca",
    "file",
    "who calls needs a certificate signed by one of these (PEM)",
    file
  ),
  insecure: insecure("listen in plain text on addresses that other machines reach"),
  ...running("127.0.0.1:7400")
}

const agent = {
  gateway: needed(
    "gateway",
    "host:port",
    "the --listen address of the gateway",
    address("tunnel.example.com:7000"),
    "--gateway tunnel.example.com:7000"
  ),
  key: needed("key", "key", "the name by which callers choose this agent", key, "--key home"),
  backend: needed(
    "backend",
    "host:port",
    "the gRPC server that gets the calls",
    address("127.0.0.1:50051"),
    "--backend 127.0.0.1:50051"
  ),
  ...backend,
  ...dialling,
  ...running("off")
}

const connect = {
  gateway: needed(
    "gateway",
    "host:port",
    "a gateway with --forward, or any tunnel server",
    address("tunnel.example.com:7000"),
    "--gateway tunnel.example.com:7000"
  ),
  listen: needed(
    "listen",
    "host:port",
    "the local port whose calls go through the tunnel",
    listening("127.0.0.1:8080"),
    "--listen 127.0.0.1:8080"
  ),
  wait: usual("wait", "time", "how long a call waits for the tunnel while it is not open", duration, "5s"),
  ...dialling,
  ...running("off")
}

const status = {
  admin: usual(
    "admin",
    "host:port",
    "the --admin address of a gateway, agent or connect that runs",
    address("127.0.0.1:7400"),
    "127.0.0.1:7400"
  ),
  once: on("once", "print once and end, also on a terminal"),
  json: on("json", "print one line of JSON and end"),
  every: usual("every", "time", "how often a terminal is redrawn", duration, "1s")
}

/** The flags of each command, by its name. */
export const commands = { gateway, agent, connect, status }

export type CommandName = keyof typeof commands
export type GatewayFlags = Values<typeof gateway>
export type AgentFlags = Values<typeof agent>
export type ConnectFlags = Values<typeof connect>
export type StatusFlags = Values<typeof status>
export type DialFlags = Values<typeof dialling>
export type RunningFlags = Values<ReturnType<typeof running>>
export type BackendFlags = Values<typeof backend>
