/** Every mistake is one sentence that says what to do, and exit code 2. */
import { mkdtempSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, test } from "vitest"
import { parse } from "../src/internal/commandLine.ts"
import { commands, variableOf } from "../src/internal/flags.ts"
import { Takes } from "../src/internal/values.ts"
import { runToEnd } from "./support/program.ts"

const gateway = ["gateway", "--listen", "127.0.0.1:0", "--expose", "127.0.0.1:0", "--admin", "off"]
const agent = ["agent", "--gateway", "127.0.0.1:1", "--key", "home", "--backend", "127.0.0.1:2"]

describe("a mistake on the command line is told in one sentence", () => {
  const sentence = (words: ReadonlyArray<string>, env: Record<string, string> = {}): string => {
    const parsed = parse(words, env, "0.0.0")
    return parsed._tag === "mistake" ? parsed.sentence : `no mistake: ${parsed._tag}`
  }

  test.each([
    [
      "no command",
      [],
      "Say what to run: curfew-tunnel gateway, agent, connect or status; --help tells more."
    ],
    ["an unknown command", ["gatway"], "There is no command gatway; did you mean gateway?"],
    ["a command like no other", ["x"], "There is no command x; use gateway, agent, connect or status."],
    ["an unknown flag", [...gateway, "--lsten"], "There is no flag --lsten; did you mean --listen?"],
    [
      "a flag like no other",
      [...gateway, "--zzz"],
      "There is no flag --zzz; see curfew-tunnel gateway --help."
    ],
    ["a flag without its value", ["agent", "--key"], "--key needs a value after it: --key <key>."],
    [
      "a word too many",
      [...gateway, "now"],
      "curfew-tunnel gateway takes flags only; see curfew-tunnel gateway --help."
    ],
    [
      "a missing key",
      ["agent", "--gateway", "127.0.0.1:1", "--backend", "127.0.0.1:2"],
      "curfew-tunnel agent needs --key home or the like: the name by which callers choose this agent."
    ],
    [
      "a port out of range",
      ["gateway", "--listen", "127.0.0.1:70000"],
      '--listen takes a port from 0 to 65535, such as 127.0.0.1:7000, not "127.0.0.1:70000".'
    ],
    [
      "a port to dial that nobody can listen on",
      ["agent", "--gateway", "a:0"],
      '--gateway takes a port from 1 to 65535, such as tunnel.example.com:7000, not "a:0".'
    ],
    [
      "an address without a port",
      ["agent", "--gateway", "home"],
      '--gateway takes a host and a port, such as tunnel.example.com:7000, not "home".'
    ],
    [
      "an address without a host",
      ["gateway", "--listen", ":7000"],
      '--listen takes a host before the port, such as 127.0.0.1:7000, not ":7000".'
    ],
    [
      "a key with a space",
      [...agent, "--key", "a b"],
      "--key takes 1 to 63 lower-case letters, digits, '-', '_' or '.', beginning with a letter or digit, such as home, not \"a b\"."
    ],
    [
      "a time without a unit",
      [...agent, "--drain", "20"],
      '--drain takes a time with its unit (ms, s, m or h), such as 20s, not "20".'
    ],
    [
      "a size that is none",
      [...agent, "--max-message", "4MB"],
      '--max-message takes bytes from 1 to 2147483647, with KiB or MiB if you like, such as 4MiB, not "4MB".'
    ],
    [
      "a word that is not one of a few",
      [...gateway, "--pick", "random"],
      '--pick takes round-robin or least-loaded, not "random".'
    ],
    [
      "an empty token, which is not repeated",
      [...agent, "--token", ""],
      "--token takes a secret that is not empty."
    ]
  ])("%s", (_, words, expected) => {
    expect(sentence(words)).toBe(expected)
  })

  test("in the environment, by the name of the variable", () => {
    expect(sentence(agent, { CURFEW_TUNNEL_LOG_LEVEL: "loud" })).toBe(
      'CURFEW_TUNNEL_LOG_LEVEL takes debug, info, warn or error, not "loud".'
    )
    expect(sentence(agent, { CURFEW_TUNNEL_INSECURE: "perhaps" })).toBe(
      'CURFEW_TUNNEL_INSECURE takes true or false, not "perhaps".'
    )
  })
})

describe("the schema", () => {
  test("a flag wins over its variable, and that over the default", () => {
    const env = { CURFEW_TUNNEL_KEY: "office", CURFEW_TUNNEL_TLS: "true", CURFEW_TUNNEL_INSECURE: "0" }
    const parsed = parse(agent, env, "0.0.0")
    if (parsed._tag !== "agent") throw new Error(parsed._tag)
    expect(parsed.flags).toMatchObject({ key: "home", tls: true, insecure: false, logFormat: "text" })
    const words = agent.filter((word) => word !== "--key" && word !== "home")
    expect(parse(words, env, "0.0.0")).toMatchObject({ flags: { key: "office" } })
  })

  test("every default passes its own reader, and every flag stands in the help with its variable and default", () => {
    for (const [name, flags] of Object.entries(commands)) {
      const help = parse([name, "--help"], {}, "0.0.0")
      const text = help._tag === "text" ? help.text.replace(/\s+/g, " ") : ""
      for (const flag of Object.values(flags)) {
        if (flag.usual !== undefined) expect(flag.read(flag.usual)).not.toBeInstanceOf(Takes)
        expect(text).toContain(`--${flag.name}`)
        expect(text).toContain(`env: ${variableOf(flag)})`)
        if (flag.usual !== undefined) expect(text).toContain(`default: ${flag.usual}`)
      }
    }
  })
})

describe("the program", { timeout: 60_000 }, () => {
  const dir = mkdtempSync(join(tmpdir(), "curfew-tunnel-"))
  const bad = join(dir, "bad.pem")
  writeFileSync(bad, "no certificate")

  const fails = async (words: ReadonlyArray<string>, expected: string | RegExp) => {
    const { code, log, out } = await runToEnd(words)
    expect(out).toBe("")
    expect(log.trimEnd()).toMatch(expected)
    expect(log.trimEnd().split("\n")).toHaveLength(1)
    expect(code).toBe(2)
  }

  test("says a mistake on the error output and ends with 2", () =>
    fails(["agent"], /^curfew-tunnel agent needs --gateway tunnel\.example\.com:7000 or the like: /))

  test("says that a port is in use", async () => {
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve))
    const { port } = taken.address() as { port: number }
    const at = `127.0.0.1:${port}`
    await fails([...gateway, "--listen", at], /^--listen: The server could not listen on .* in use.*\.$/)
    await fails([...gateway, "--expose", at], /^--expose: The server could not listen on .* in use.*\.$/)
    await fails([...gateway, "--admin", at], /^--admin \S+ cannot be listened on: the port is in use; .*\.$/)
    taken.close()
  })

  test("refuses plain text on addresses that others reach", async () => {
    await fails(
      [...gateway, "--listen", "0.0.0.0:0"],
      /^--listen 0\.0\.0\.0:0 would be reached by other machines/
    )
    await fails(
      [...gateway, "--expose", "0.0.0.0:0"],
      /^--expose 0\.0\.0\.0:0 would be reached .*--expose-tls-cert/
    )
    await fails([...gateway, "--admin", "0.0.0.0:0"], /^--admin 0\.0\.0\.0:0 would tell other machines/)
    await fails(
      [...agent, "--gateway", "example.com:1"],
      /^The gateway example\.com:1 is on another machine: /
    )
  })

  test("says which certificate cannot be read, or does not fit", async () => {
    await fails(
      [...gateway, "--tls-cert", join(dir, "none.pem"), "--tls-key", bad],
      /^--tls-cert cannot be read from \S+none\.pem: there is no such file; give the path of a PEM file\.$/
    )
    await fails(
      [...gateway, "--tls-cert", bad, "--tls-key", bad],
      /^The files \S+, \S+ are no certificate, key or/
    )
    await fails([...gateway, "--tls-cert", bad], /^--tls-cert needs --tls-key beside it; give both files\.$/)
    await fails([...gateway, "--tls-ca", bad], /^(The files|--tls-ca needs)/)
  })
})
