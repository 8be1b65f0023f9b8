/** What earlier campaigns found out, so that a broken-off one goes on where it stopped: one line of JSON each. */
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"

export class Memory<T> {
  readonly #file: string
  readonly #known = new Map<string, T>()

  constructor(file: string) {
    this.#file = file
    mkdirSync(dirname(file), { recursive: true })
    const lines = existsSync(file) ? readFileSync(file, "utf8").split("\n") : []
    for (const line of lines) {
      try {
        const { key, value }: { key: string; value: T } = JSON.parse(line)
        this.#known.set(key, value)
      } catch {
        // The last line of a campaign that was killed while it wrote; what it said is found out again.
      }
    }
    // A later line for the same key stands for the earlier ones.
    writeFileSync(
      file,
      [...this.#known].map(([key, value]) => `${JSON.stringify({ key, value })}\n`).join("")
    )
  }

  get(key: string): T | undefined {
    return this.#known.get(key)
  }

  set(key: string, value: T): void {
    this.#known.set(key, value)
    appendFileSync(this.#file, `${JSON.stringify({ key, value })}\n`)
  }
}
