import { describe, expect, test } from "vitest"
import type { LoadedTunnel } from "../src/index.ts"
import { Pool, type Pooled } from "../src/internal/pool.ts"

describe("a pool whose tunnels are all full", () => {
  test("looks at each of them once when a stream ends, however many calls wait", () => {
    let looks = 0
    let size = 1
    const member = (): Pooled => {
      const engine = {
        link: { limits: { maxStreams: 1 } },
        get available() {
          looks++
          return true
        },
        get size() {
          return size
        }
      }
      return { tunnel: {} as LoadedTunnel, engine: engine as unknown as Pooled["engine"] }
    }
    const pool = new Pool()
    for (let count = 0; count < 100; count++) pool.add(member())
    const placed: Array<number> = []
    for (let index = 0; index < 1_000; index++) {
      pool.wait({
        policy: "leastLoaded",
        call: { method: "", host: "" },
        place: () => {
          placed.push(index)
          size = 1
        },
        fail: (error) => {
          throw error
        }
      })
    }
    looks = 0
    pool.notify()
    expect(placed).toEqual([])
    expect(looks).toBe(100)
    size = 0
    pool.notify()
    expect(placed).toEqual([0])
  })
})
