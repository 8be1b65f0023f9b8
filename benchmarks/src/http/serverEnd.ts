/** One server in a process of its own: `serverEnd.ts <server> <bare|edge>`. */
import { answer } from "../harness/child.ts"
import { type Side, servers } from "./servers.ts"

const [name = "", side = ""] = process.argv.slice(2)
const build = servers[name]
if (build === undefined || (side !== "bare" && side !== "edge"))
  throw new Error(`There is no ${side} server "${name}"; there are ${Object.keys(servers).join(", ")}.`)
const port = build(side satisfies Side)
answer({ port: () => port })
