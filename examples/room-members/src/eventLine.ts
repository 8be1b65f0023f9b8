import type { Event } from "./Activity.ts"

/** An event as a line of the log. */
export const eventLine = (event: Event): string => {
  switch (event.kind) {
    case "begins":
      return `> ${event.id}  ${event.path}`
    case "note":
      return `. ${event.what} ${event.how}`
    case "ends": {
      const why = event.why === undefined ? "" : `: ${event.why}`
      const left = event.outlived.length === 0 ? "" : `; went on: ${event.outlived.join(", ")}`
      return `< ${event.id}  ${event.path} ${event.status}${why}${left} (${event.millis} ms)`
    }
  }
}
