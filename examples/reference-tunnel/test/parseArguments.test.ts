import { describe, expect, test } from "vitest"
import { help } from "../src/cli/help.ts"
import { parseArguments } from "../src/cli/parseArguments.ts"

describe("a command line", () => {
  test.each([
    [[], { _tag: "up", once: false, port: 0, plant: undefined }],
    [["--once"], { _tag: "up", once: true, port: 0, plant: undefined }],
    [["--once", "--plant=fiber"], { _tag: "up", once: true, port: 0, plant: "fiber" }],
    [["--once", "--plant", "error"], { _tag: "up", once: true, port: 0, plant: "error" }],
    [["--port=4000"], { _tag: "up", once: false, port: 4000, plant: undefined }],
    [["backend"], { _tag: "backend", port: 50053, plant: false }],
    [["gateway", "--port=0", "--tunnel-port=0"], { _tag: "gateway", port: 0, tunnelPort: 0 }],
    [
      ["agent", "--gateway=127.0.0.1:1"],
      { _tag: "agent", gateway: "127.0.0.1:1", backend: "127.0.0.1:50053", plant: false }
    ],
    [
      ["call", "--word=dog", "--range", "--timeout=5"],
      {
        _tag: "call",
        gateway: "127.0.0.1:50051",
        word: "dog",
        distance: 1,
        range: true,
        count: 0,
        maxHashes: 0,
        timeout: 5
      }
    ],
    [["backend", "--help"], { _tag: "help" }]
  ])("%j is understood", (args, command) => {
    expect(parseArguments(args)).toEqual({ command })
  })

  test.each([
    [["--wrong"], "Unknown flag --wrong; npm run reference knows --once, --plant and --port."],
    [["--once", "--plant=cat"], `--plant takes fiber, stream or error, not "cat".`],
    [["--plant=fiber"], "--plant needs --once: a planted fault is there to be measured."],
    [["--port=65536"], `--port takes a port, 0 to 65535, not "65536".`],
    [["--port=x"], `--port takes a port, 0 to 65535, not "x".`],
    [["--port"], "--port needs a value: --port=…"],
    [["--port", "--once"], "--port needs a value: --port=…"],
    [["--once=yes"], "--once takes no value."],
    [["server"], `There is no role "server"; there are backend, gateway, agent and call.`],
    [["backend", "--gateway=a:1"], "Unknown flag --gateway; the backend knows --port."],
    [["agent", "--gateway=nowhere"], `--gateway takes an address such as 127.0.0.1:50051, not "nowhere".`],
    [["backend", "extra"], `"extra" is not a flag; see --help.`]
  ])("%j is told its problem in one sentence", (args, problem) => {
    expect(parseArguments(args)).toEqual({ problem })
  })

  test("is taught by the help", () => {
    for (const word of ["--once", "--plant", "--port", "backend", "gateway", "agent", "call", "Exit codes"]) {
      expect(help).toContain(word)
    }
  })
})
