/**
 * What goes on while a long run goes on, to standard error, where it is in no table. A terminal sees one line that
 * changes; a file gets a line now and then.
 */
const every = 5_000

let last = 0

export const progress = (text: string): void => {
  if (process.stderr.isTTY) {
    process.stderr.write(`\r\u001b[K${text}`)
    return
  }
  const now = performance.now()
  if (last !== 0 && now - last < every) return
  last = now
  process.stderr.write(`${text}\n`)
}

/** Takes the changing line away. */
export const progressEnd = (): void => {
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[K")
}
