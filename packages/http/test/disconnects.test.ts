import { type Departure, type DisconnectDriver, disconnectMatrix } from "@curfew/testing"
import { httpDisconnects } from "@curfew/testing/httpDisconnects"
import * as Effect from "effect/Effect"
import { describe, test } from "vitest"
import { type Link, nodeHttp1, nodeHttp2 } from "./support/drivers.ts"
import { http2Departures } from "./support/http2Departures.ts"

const matrix = (driver: DisconnectDriver<Link>, departures: Iterable<Departure<Link>>) =>
  disconnectMatrix(driver, departures).map(({ name, run }) => [name, run] as const)

describe("L39, L40: the disconnect matrix over node:http", { timeout: 60_000 }, () => {
  test.each(matrix(nodeHttp1, httpDisconnects))("%s", async (_, run) => {
    await Effect.runPromise(run)
  })
})

describe("L39, L40: the disconnect matrix over node:http2", { timeout: 60_000 }, () => {
  test.each(matrix(nodeHttp2, http2Departures))("%s", async (_, run) => {
    await Effect.runPromise(run)
  })
})
