/**
 * Where a function or a suspended generator stands in the source, asked of the engine's own inspector.
 *
 * Invariants
 * 1. Without the inspector (another engine, a locked-down process) there is no position, and nothing fails.
 * 2. The session is closed again by whoever opened it, and no value stays reachable from the global object.
 * 3. Source maps inside a script are followed, so that the position is one of the file that was written.
 */
// biome-ignore lint/suspicious/noExplicitAny: the inspector's protocol
type Post = (method: string, parameters?: object) => any

/** A place in a file, both numbers from 1 on. */
export interface Place {
  readonly file: string
  readonly line: number
  readonly column: number
}

export type Locate = (value: unknown) => Place | undefined

const nowhere: Locate = () => undefined
const handle = "@curfew/testing/located"

interface Script {
  readonly url: string
  readonly sourceMapURL?: string | undefined
}

/** Opens the inspector; to be closed as soon as the places are known. */
export const openLocator = (): { readonly locate: Locate; readonly close: () => void } => {
  try {
    const inspector = globalThis.process?.getBuiltinModule?.("node:inspector")
    if (inspector === undefined) return { locate: nowhere, close: () => undefined }
    const session = new inspector.Session()
    session.connect()
    return {
      locate: locator(session),
      close: () => {
        session.disconnect()
        delete (globalThis as Record<string, unknown>)[handle]
      }
    }
  } catch {
    return { locate: nowhere, close: () => undefined }
  }
}

/** Calls back with a function that finds places, for as long as the call lasts. */
export const located = <A>(use: (locate: Locate) => A): A => {
  const { close, locate } = openLocator()
  try {
    return use(locate)
  } finally {
    close()
  }
}

const locator = (session: import("node:inspector").Session): Locate => {
  const scripts = new Map<string, Script>()
  const post: Post = (method, parameters) => {
    let answer: unknown
    session.post(method, parameters ?? {}, (_, result) => {
      answer = result
    })
    return answer
  }
  session.on("Debugger.scriptParsed", ({ params }) => scripts.set(params.scriptId, params))
  post("Debugger.enable")
  const maps = new Map<string, import("node:module").SourceMap | undefined>()
  const known = new WeakMap<object, Place | null>()

  const find = (value: object): Place | undefined => {
    ;(globalThis as Record<string, unknown>)[handle] = value
    const object = post("Runtime.evaluate", { expression: `globalThis[${JSON.stringify(handle)}]` })
    const properties = post("Runtime.getProperties", {
      objectId: object?.result?.objectId,
      ownProperties: true
    })
    const location = properties?.internalProperties?.find(
      ({ name }: { readonly name: string }) =>
        name === "[[FunctionLocation]]" || name === "[[GeneratorLocation]]"
    )?.value?.value
    const script = scripts.get(location?.scriptId)
    if (script === undefined || script.url === "") return undefined
    if (!maps.has(location.scriptId)) maps.set(location.scriptId, sourceMap(script))
    const entry = maps.get(location.scriptId)?.findEntry(location.lineNumber, location.columnNumber)
    return entry !== undefined && "originalLine" in entry
      ? { file: fileOf(script.url), line: entry.originalLine + 1, column: entry.originalColumn + 1 }
      : { file: fileOf(script.url), line: location.lineNumber + 1, column: location.columnNumber + 1 }
  }

  return (value) => {
    if (typeof value !== "function" && (typeof value !== "object" || value === null)) return undefined
    const seen = typeof value === "function" ? known.get(value) : undefined
    if (seen !== undefined) return seen ?? undefined
    try {
      const place = find(value)
      if (typeof value === "function") known.set(value, place ?? null)
      return place
    } catch {
      return undefined
    }
  }
}

const sourceMap = ({ sourceMapURL, url }: Script): import("node:module").SourceMap | undefined => {
  const { SourceMap, findSourceMap } = process.getBuiltinModule("node:module")
  const inline = /^data:application\/json[^,]*;base64,(.*)$/.exec(sourceMapURL ?? "")?.[1]
  if (inline === undefined) return findSourceMap(fileOf(url))
  return new SourceMap(JSON.parse(Buffer.from(inline, "base64").toString("utf8")))
}

/** The path of a script's URL, relative to the working directory where it lies below it. */
const fileOf = (url: string): string => {
  if (!url.startsWith("file:")) return url
  const path = process.getBuiltinModule("node:url").fileURLToPath(url)
  const below = `${process.cwd()}/`
  return path.startsWith(below) ? path.slice(below.length) : path
}
