import { describe, expect, test } from "vitest"
import { clientAbout, clientFlags, serverAbout, serverFlags } from "../src/cli.ts"
import { parseFlags } from "../src/flags.ts"

const client = (...args: ReadonlyArray<string>) => parseFlags(clientAbout, clientFlags, args)
const server = (...args: ReadonlyArray<string>) => parseFlags(serverAbout, serverFlags, args)

describe("the flags", () => {
  test("have usual values", () => {
    expect(server()).toEqual({ values: { port: 50051, workers: 0, limit: 1_000_000_000, drain: 20 } })
    expect(client()).toEqual({
      values: { server: "127.0.0.1:50051", name: "curfew", ideal: 0, stream: false, interesting: 1 }
    })
  })

  test("take their value behind a sign or a space", () => {
    expect(server("--port=0", "--workers", "2")).toMatchObject({ values: { port: 0, workers: 2 } })
    expect(client("--stream", "--name", "a=b")).toMatchObject({ values: { stream: true, name: "a=b" } })
  })

  test.each(["--help", "-h"])("are all explained by %s", (flag) => {
    const parsed = client("--ideal=1", flag)
    for (const name of Object.keys(clientFlags))
      expect("help" in parsed && parsed.help).toContain(`--${name}`)
  })

  const known = "--server, --name, --ideal, --stream, --interesting or --help"
  test.each([
    ["--nmae=x", `There is no flag "--nmae=x"; use ${known}.`],
    ["--constructor=x", `There is no flag "--constructor=x"; use ${known}.`],
    ["name", `There is no flag "name"; use ${known}.`],
    ["--stream=yes", "--stream takes no value; write just --stream."],
    ["--name", '--name takes a name such as curfew, not "".'],
    ["--name=", '--name takes a name such as curfew, not "".'],
    ["--ideal=-1", '--ideal takes a whole number from 0 to 43, not "-1".'],
    ["--ideal=44", '--ideal takes a whole number from 0 to 43, not "44".'],
    ["--interesting=1.5", '--interesting takes a whole number from 0 to 43, not "1.5".'],
    ["--server=here", '--server takes an address such as 127.0.0.1:50051, not "here".']
  ])("say what is wrong with %s of the client", (arg, problem) => {
    expect(client(arg)).toEqual({ problem })
  })

  test.each([
    ["--port=65536", '--port takes a whole number from 0 to 65535, not "65536".'],
    ["--workers=", '--workers takes a whole number from 0 to 64, not "".'],
    ["--limit=0", '--limit takes a whole number from 1 to 1000000000000, not "0".'],
    ["--drain=soon", '--drain takes a whole number from 0 to 3600, not "soon".']
  ])("say what is wrong with %s of the server", (arg, problem) => {
    expect(server(arg)).toEqual({ problem })
  })
})
