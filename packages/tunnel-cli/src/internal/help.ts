/**
 * What `--help` teaches beside the table of flags.
 *
 * **Invariants**
 * 1. Every command that stands here can be pasted as it is.
 */
import type { CommandName } from "./flags.ts"

export const program = `Reaches gRPC services behind NAT: an agent beside the service dials out to a gateway, and
whoever calls the gateway reaches the service. Any method passes as bytes; no protos are needed.

On a machine that both sides reach:
  curfew-tunnel gateway --listen 127.0.0.1:7000 --expose 127.0.0.1:8080
Beside the service, which listens on 127.0.0.1:50051:
  curfew-tunnel agent --gateway 127.0.0.1:7000 --key home --backend 127.0.0.1:50051
Then call the gateway, and name the agent:
  grpcurl -plaintext -H 'curfew-agent: home' 127.0.0.1:8080 list

Every flag has an environment variable: --some-flag is CURFEW_TUNNEL_SOME_FLAG, and the flag wins.
Ctrl-C or SIGTERM lets calls end (--drain), then cancels them (--force); a second one moves on at once.
Exit codes: 0 ended in order; 1 failed, or left something behind; 2 a mistake on the command line.`

export const summaries: Readonly<Record<CommandName, string>> = {
  gateway: "take tunnels on one port, and expose what the agents serve on another",
  agent: "dial a gateway and offer it a gRPC server, for as long as this runs",
  connect: "open a local port whose calls go to one server, through one tunnel",
  status: "show what a gateway, agent or connect is doing, live"
}

export const examples: Readonly<Record<CommandName, string>> = {
  gateway: `Takes tunnels on --listen, and exposes what the agents serve as ordinary gRPC on --expose.

  curfew-tunnel gateway --listen 127.0.0.1:7000 --expose 127.0.0.1:8080
  curfew-tunnel agent --gateway 127.0.0.1:7000 --key home --backend 127.0.0.1:50051

A call goes to the agent whose key it names: in the metadata "curfew-agent"; else as its host (:authority)
or the first label of its host, home.example.com; else to --default-key. Agents with one key share its calls.
Health checks (grpc.health.v1) that name no agent in the metadata are answered by the gateway: for the service ""
whether it takes calls, for a key whether an agent with it is connected.`,
  agent: `Dials the gateway, stays connected, and passes every call that comes through to the backend.

  curfew-tunnel agent --gateway 127.0.0.1:7000 --key home --backend 127.0.0.1:50051

While the gateway cannot be reached it tries again, at growing intervals. While the backend is down calls are
answered UNAVAILABLE and the tunnel stays open.`,
  connect: `Listens on a local port and sends each call on it through one tunnel to the server at its other end.

  curfew-tunnel gateway --listen 127.0.0.1:7000 --expose 127.0.0.1:8080 --forward 127.0.0.1:50051
  curfew-tunnel connect --gateway 127.0.0.1:7000 --listen 127.0.0.1:9000`,
  status: `Asks the --admin address of a running gateway, agent or connect: tunnels, keys, calls, what was cancelled and
why, bytes, the live tree, and what a shutdown is waiting for, by name. Redraws on a terminal; else prints once.

  curfew-tunnel status
  curfew-tunnel status --json | jq .calls`
}
