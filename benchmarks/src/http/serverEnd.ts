/** One server in a process of its own: `serverEnd.ts <server> <bare|edge|least>`. */
import { answer } from "../harness/child.ts"
import { type Side, servers, sides } from "./servers.ts"

const [name = "", side = ""] = process.argv.slice(2)
const build = servers[name]
if (build === undefined || !sides.includes(side as Side))
  throw new Error(`There is no ${side} server "${name}"; there are ${Object.keys(servers).join(", ")}.`)
const port = build(side as Side)
answer({ port: () => port })
