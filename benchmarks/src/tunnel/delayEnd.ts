/**
 * A link: a TCP proxy that hands on every byte 25 ms after it came, in either direction, as fast as they come. It holds
 * what is on its way without a limit, as a long line does; what bounds it are the windows of the ends.
 */
import { connect, createServer, type Socket } from "node:net"
import { answer } from "../harness/child.ts"

const delayMillis = 25

/** Hands on what one end says. All wait equally long, so one timer at a time keeps them in order. */
const carry = (from: Socket, to: Socket): void => {
  const waiting: Array<{ readonly due: number; readonly chunk: Buffer | undefined }> = []
  let armed = false
  const arm = (): void => {
    const next = waiting[0]
    if (armed || next === undefined) return
    armed = true
    setTimeout(
      () => {
        armed = false
        for (const now = performance.now(); waiting[0] !== undefined && waiting[0].due <= now; ) {
          const { chunk } = waiting.shift() as (typeof waiting)[number]
          if (chunk === undefined) to.end()
          else to.write(chunk)
        }
        arm()
      },
      Math.max(1, Math.ceil(next.due - performance.now()))
    )
  }
  const put = (chunk?: Buffer): void => {
    waiting.push({ due: performance.now() + delayMillis, chunk })
    arm()
  }
  from.on("data", put)
  from.on("end", () => put())
  from.on("error", () => to.destroy())
}

const listen = (port: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
      const far = connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true })
      carry(near, far)
      carry(far, near)
    })
    server.on("error", reject)
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      if (address === null || typeof address === "string") reject(new Error("The proxy has no port."))
      else resolve(address.port)
    })
  })

answer({ listen })
